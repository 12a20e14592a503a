struct resize_bilinear {
    int32_t batches, input_height, input_width, output_height, output_width, channels;
};

/* rows and columns: for each of the output the one before, the one after, and the way between the two in 1/1024. */
static void resize_bilinear(const int8_t *input, const int16_t *rows, const int16_t *columns, int8_t *output,
                            const struct resize_bilinear *p)
{
    const int32_t row = p->input_width * p->channels;
    for (int32_t n = 0; n < p->batches; n++, input += p->input_height * row) {
        for (int32_t y = 0; y < p->output_height; y++) {
            const int8_t *above = input + rows[3 * y] * row;
            const int8_t *below = input + rows[3 * y + 1] * row;
            const int32_t down = rows[3 * y + 2];
            for (int32_t x = 0; x < p->output_width; x++) {
                const int32_t left = columns[3 * x] * p->channels;
                const int32_t right = columns[3 * x + 1] * p->channels;
                const int32_t along = columns[3 * x + 2];
                for (int32_t channel = 0; channel < p->channels; channel++) {
                    const int32_t upper = above[left + channel] * (1024 - along) + above[right + channel] * along;
                    const int32_t lower = below[left + channel] * (1024 - along) + below[right + channel] * along;
                    const int32_t sum = upper * (1024 - down) + lower * down;
                    *output++ = clamp((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20), -128, 127);
                }
            }
        }
    }
}
