struct add {
    int32_t size[4], a_step[4], b_step[4]; /* of the output; a step of 0 repeats */
    int32_t sign;                          /* 1 adds, -1 subtracts */
    int32_t a_zero, a_multiplier, a_shift, b_zero, b_multiplier, b_shift;
    int32_t output_zero, output_multiplier, output_shift, low, high;
};

/* Both sides go to a common, 20 bits finer grid, where they are added. */
static void add(const int8_t *a, const int8_t *b, int8_t *output, const struct add *p)
{
    for (int32_t i = 0; i < p->size[0]; i++) {
        for (int32_t j = 0; j < p->size[1]; j++) {
            for (int32_t k = 0; k < p->size[2]; k++) {
                const int8_t *x = a + i * p->a_step[0] + j * p->a_step[1] + k * p->a_step[2];
                const int8_t *y = b + i * p->b_step[0] + j * p->b_step[1] + k * p->b_step[2];
                for (int32_t m = 0; m < p->size[3]; m++, x += p->a_step[3], y += p->b_step[3]) {
                    const int32_t first = rescale((*x - p->a_zero) * (1 << 20), p->a_multiplier, p->a_shift);
                    const int32_t second = rescale((*y - p->b_zero) * (1 << 20), p->b_multiplier, p->b_shift);
                    const int32_t sum = first + p->sign * second;
                    *output++ = clamp(rescale(sum, p->output_multiplier, p->output_shift) + p->output_zero,
                                      p->low, p->high);
                }
            }
        }
    }
}
