struct move {
    int32_t size[6], from[6], to[6]; /* how many, and the steps in input and output; the last axis is innermost */
    int32_t from_start, to_start;
};

/* Copies numbers to other places: slices, transposes, what a concatenation or padding takes over. */
static void move(const int8_t *input, int8_t *output, const struct move *p)
{
    input += p->from_start;
    output += p->to_start;
    for (int32_t a = 0; a < p->size[0]; a++) {
        for (int32_t b = 0; b < p->size[1]; b++) {
            for (int32_t c = 0; c < p->size[2]; c++) {
                for (int32_t d = 0; d < p->size[3]; d++) {
                    for (int32_t e = 0; e < p->size[4]; e++) {
                        const int8_t *x = input + a * p->from[0] + b * p->from[1] + c * p->from[2] +
                                          d * p->from[3] + e * p->from[4];
                        int8_t *y = output + a * p->to[0] + b * p->to[1] + c * p->to[2] + d * p->to[3] +
                                    e * p->to[4];
                        for (int32_t f = 0; f < p->size[5]; f++, x += p->from[5], y += p->to[5]) {
                            *y = *x;
                        }
                    }
                }
            }
        }
    }
}
