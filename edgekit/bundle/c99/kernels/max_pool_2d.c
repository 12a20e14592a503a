static void max_pool_2d(const int8_t *input, int8_t *output, const struct pool_2d *p)
{
    const int32_t row = p->input_width * p->channels;
    for (int32_t n = 0; n < p->batches; n++, input += p->input_height * row) {
        for (int32_t y = 0; y < p->output_height; y++) {
            for (int32_t x = 0; x < p->output_width; x++) {
                const int32_t top = y * p->stride_height - p->pad_top;
                const int32_t left = x * p->stride_width - p->pad_left;
                for (int32_t channel = 0; channel < p->channels; channel++) {
                    int32_t most = -128;
                    for (int32_t i = top < 0 ? -top : 0; i < p->window_height && top + i < p->input_height; i++) {
                        for (int32_t j = left < 0 ? -left : 0; j < p->window_width && left + j < p->input_width; j++) {
                            const int32_t value = input[(top + i) * row + (left + j) * p->channels + channel];
                            most = value > most ? value : most;
                        }
                    }
                    *output++ = clamp(most, p->low, p->high);
                }
            }
        }
    }
}
