struct mul {
    int32_t size[4], a_step[4], b_step[4]; /* of the output; a step of 0 repeats */
    int32_t a_zero, b_zero, output_zero, multiplier, shift, low, high;
};

static void mul(const int8_t *a, const int8_t *b, int8_t *output, const struct mul *p)
{
    for (int32_t i = 0; i < p->size[0]; i++) {
        for (int32_t j = 0; j < p->size[1]; j++) {
            for (int32_t k = 0; k < p->size[2]; k++) {
                const int8_t *x = a + i * p->a_step[0] + j * p->a_step[1] + k * p->a_step[2];
                const int8_t *y = b + i * p->b_step[0] + j * p->b_step[1] + k * p->b_step[2];
                for (int32_t m = 0; m < p->size[3]; m++, x += p->a_step[3], y += p->b_step[3]) {
                    const int32_t product = (*x - p->a_zero) * (*y - p->b_zero);
                    *output++ = clamp(rescale(product, p->multiplier, p->shift) + p->output_zero, p->low, p->high);
                }
            }
        }
    }
}
