struct resize_nearest {
    int32_t batches, input_height, input_width, output_height, output_width, channels;
};

/* rows and columns: which of the input each of the output shows. */
static void resize_nearest(const int8_t *input, const int16_t *rows, const int16_t *columns, int8_t *output,
                           const struct resize_nearest *p)
{
    const int32_t row = p->input_width * p->channels;
    for (int32_t n = 0; n < p->batches; n++, input += p->input_height * row) {
        for (int32_t y = 0; y < p->output_height; y++) {
            for (int32_t x = 0; x < p->output_width; x++) {
                const int8_t *pixel = input + rows[y] * row + columns[x] * p->channels;
                for (int32_t channel = 0; channel < p->channels; channel++) {
                    *output++ = pixel[channel];
                }
            }
        }
    }
}
