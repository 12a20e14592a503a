struct mean {
    int32_t kept[3], kept_step[3]; /* axes of the output */
    int32_t over[3], over_step[3]; /* axes that are averaged */
    int32_t total_zero;            /* the input's zero point, as often as numbers are added */
    int32_t output_zero, multiplier, shift;
};

/* The division is part of the multiplier. */
static void mean(const int8_t *input, int8_t *output, const struct mean *p)
{
    for (int32_t i = 0; i < p->kept[0]; i++) {
        for (int32_t j = 0; j < p->kept[1]; j++) {
            for (int32_t k = 0; k < p->kept[2]; k++) {
                const int8_t *first = input + i * p->kept_step[0] + j * p->kept_step[1] + k * p->kept_step[2];
                int32_t sum = -p->total_zero;
                for (int32_t a = 0; a < p->over[0]; a++) {
                    for (int32_t b = 0; b < p->over[1]; b++) {
                        const int8_t *x = first + a * p->over_step[0] + b * p->over_step[1];
                        for (int32_t c = 0; c < p->over[2]; c++, x += p->over_step[2]) {
                            sum += *x;
                        }
                    }
                }
                *output++ = clamp(rescale(sum, p->multiplier, p->shift) + p->output_zero, -128, 127);
            }
        }
    }
}
