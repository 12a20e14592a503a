struct pool_2d {
    int32_t batches, input_height, input_width, channels, output_height, output_width;
    int32_t window_height, window_width, stride_height, stride_width, pad_top, pad_left, low, high;
};
