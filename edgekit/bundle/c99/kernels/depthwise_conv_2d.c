struct depthwise_conv_2d {
    int32_t batches, input_height, input_width, input_channels;
    int32_t output_height, output_width, channel_multiplier; /* each input channel makes so many */
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width, dilation_height, dilation_width, pad_top, pad_left;
    int32_t input_zero, output_zero, low, high;
    int32_t scale_step; /* 1: a multiplier and a shift for each output channel, 0: one for all */
};

/* input (N, H, W, C), weights (1, kernel height, kernel width, C * channel multiplier), bias or NULL. */
static void depthwise_conv_2d(const int8_t *input, const int8_t *weights, const int32_t *bias,
                              const int32_t *multipliers, const int8_t *shifts, int8_t *output,
                              const struct depthwise_conv_2d *p)
{
    const int32_t row = p->input_width * p->input_channels;
    const int32_t channels = p->input_channels * p->channel_multiplier;
    const int32_t step = p->dilation_width * p->input_channels;
    const int32_t input_zero = p->input_zero; /* what is read by a pointer would be read again for each product */
    for (int32_t n = 0; n < p->batches; n++, input += p->input_height * row) {
        for (int32_t y = 0; y < p->output_height; y++) {
            const int32_t top = y * p->stride_height - p->pad_top;
            const int32_t first = first_inside(top, p->dilation_height);
            const int32_t end = end_inside(top, p->dilation_height, p->kernel_height, p->input_height);
            for (int32_t x = 0; x < p->output_width; x++) {
                const int32_t left = x * p->stride_width - p->pad_left;
                const int32_t from = first_inside(left, p->dilation_width);
                const int32_t to = end_inside(left, p->dilation_width, p->kernel_width, p->input_width);
                for (int32_t channel = 0; channel < channels; channel++) {
                    const int8_t *plane = input + left * p->input_channels + channel / p->channel_multiplier;
                    int32_t sum = bias != NULL ? bias[channel] : 0;
                    for (int32_t i = first; i < end; i++) {
                        const int8_t *pixel = plane + (top + i * p->dilation_height) * row + from * step;
                        const int8_t *w = weights + (i * p->kernel_width + from) * channels + channel;
                        for (int32_t j = from; j < to; j++, pixel += step, w += channels) {
                            sum += (*pixel - input_zero) * *w;
                        }
                    }
                    sum = rescale(sum, multipliers[channel * p->scale_step], shifts[channel * p->scale_step]);
                    *output++ = clamp(sum + p->output_zero, p->low, p->high);
                }
            }
        }
    }
}
