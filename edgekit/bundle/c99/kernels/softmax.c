struct softmax {
    int32_t rows, depth;
    int32_t multiplier, shift; /* from a difference of inputs to Q5.26 */
    int32_t least;             /* smaller differences count as nothing */
};

/* e^x for x in Q5.26, not positive; the answer in Q0.31. A multiple of 1/4 is taken out of x bit by bit, for the
   rest in [-1/4, 0) there is a Taylor series around -1/8. */
static int32_t exp_not_positive(int32_t x)
{
    static const int32_t powers[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242}; /* e^-(2^k) in Q0.31, k = -2 ... 4 */
    const int32_t rest = (x & 0xffffff) - 0x1000000;
    const int32_t quarters = rest - x;
    const int32_t d = rest * 32 + (1 << 28); /* distance from -1/8, Q0.31 */
    const int32_t d2 = high_mul(d, d);
    const int32_t d3 = high_mul(d2, d);
    const int32_t d4 = high_mul(d2, d2);
    const int32_t high_terms = rounding_shift(high_mul(rounding_shift(d4, 2) + d3, 715827883) + d2, 1);
    int32_t answer = /* e^(-1/8) */ 1895147668 + high_mul(1895147668, d + high_terms);
    for (int32_t k = 0; k < 7; k++) {
        if ((quarters >> (24 + k)) & 1) {
            answer = high_mul(answer, powers[k]);
        }
    }
    return x == 0 ? INT32_MAX : answer;
}

/* 1 / (1 + x) for x in [0, 1), both in Q0.31: three steps of Newton's iteration from 48/17 - 32/17 * d. */
static int32_t inverse_of_one_plus(int32_t x)
{
    const int32_t d = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2); /* (1 + x) / 2 */
    int32_t guess = 1515870810 + high_mul(d, -1010580540); /* Q2.29 */
    for (int i = 0; i < 3; i++) {
        guess += high_mul(guess, (1 << 29) - high_mul(d, guess)) * 4;
    }
    return guess > (1 << 30) - 1 ? INT32_MAX : guess * 2; /* guess / 2, saturated */
}

static void softmax(const int8_t *input, int8_t *output, const struct softmax *p)
{
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, output += p->depth) {
        int32_t most = -128;
        int32_t sum = 0; /* Q12.19 */
        int32_t zeros = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            most = input[i] > most ? input[i] : most;
        }
        for (int32_t i = 0; i < p->depth; i++) {
            if (input[i] - most >= p->least) {
                const int32_t x = rescale(input[i] - most, p->multiplier, p->shift);
                sum += rounding_shift(exp_not_positive(x), 12);
            }
        }
        while ((((uint32_t)sum << zeros) & UINT32_C(0x80000000)) == 0) {
            zeros++;
        }
        const int32_t inverse = inverse_of_one_plus((int32_t)(((uint32_t)sum << zeros) - UINT32_C(0x80000000)));
        for (int32_t i = 0; i < p->depth; i++) {
            int32_t share = 0;
            if (input[i] - most >= p->least) {
                const int32_t x = rescale(input[i] - most, p->multiplier, p->shift);
                share = rounding_shift(high_mul(inverse, exp_not_positive(x)), 35 - zeros);
            }
            output[i] = clamp(share - 128, -128, 127);
        }
    }
}
