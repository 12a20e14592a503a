struct fully_connected {
    int32_t rows, inputs, outputs;
    int32_t input_zero, output_zero, low, high;
    int32_t scale_step; /* 1: a multiplier and a shift for each output, 0: one for all */
};

/* input (rows, inputs), weights (outputs, inputs), bias or NULL. */
static void fully_connected(const int8_t *input, const int8_t *weights, const int32_t *bias,
                            const int64_t *multipliers, const int8_t *shifts, int8_t *output,
                            const struct fully_connected *p)
{
    for (int32_t row = 0; row < p->rows; row++, input += p->inputs) {
        const int8_t *w = weights;
        for (int32_t i = 0; i < p->outputs; i++, w += p->inputs) {
            int32_t sum = dot(bias != NULL ? bias[i] : 0, input, w, p->inputs, p->input_zero);
            sum = rescale_once(sum, multipliers[i * p->scale_step], shifts[i * p->scale_step]);
            *output++ = clamp(sum + p->output_zero, p->low, p->high);
        }
    }
}
