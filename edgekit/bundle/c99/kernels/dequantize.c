struct dequantize {
    int32_t count, zero;
    float scale;
};

static void dequantize(const int8_t *input, float *output, const struct dequantize *p)
{
    for (int32_t i = 0; i < p->count; i++) {
        output[i] = p->scale * (float)(input[i] - p->zero);
    }
}
