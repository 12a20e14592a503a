struct dequantize_each {
    int32_t count, zero;
    float scale;
    int32_t factors;
};

/* To floats, and each times the factor of its channel: two products, each rounded for itself. */
static void dequantize_each(const int8_t *input, const float *factors, float *output, const struct dequantize_each *p)
{
    int32_t channel = 0;
    for (int32_t i = 0; i < p->count; i++) {
        const float real = p->scale * (float)(input[i] - p->zero);
        output[i] = real * factors[channel];
        channel = channel + 1 == p->factors ? 0 : channel + 1;
    }
}
