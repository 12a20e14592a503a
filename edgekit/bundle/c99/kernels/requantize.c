struct requantize {
    int32_t count;
    int32_t input_flip, output_flip; /* 0x80 turns uint8 into int8 and back, 0 leaves int8 as it is */
    int32_t input_zero, output_zero, multiplier, shift, low, high;
};

/* From one grid to another, and a clamp. */
static void requantize(const void *input, void *output, const struct requantize *p)
{
    const uint8_t *from = (const uint8_t *)input;
    uint8_t *to = (uint8_t *)output;
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t value = (int8_t)(uint8_t)(from[i] ^ p->input_flip) - p->input_zero;
        const int8_t found = clamp(rescale(value, p->multiplier, p->shift) + p->output_zero, p->low, p->high);
        to[i] = (uint8_t)((uint8_t)found ^ p->output_flip);
    }
}
