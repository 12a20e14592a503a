/* sum + the sum of (x[i] - zero) * w[i]. Zero: -128 to 127. */
static int32_t dot(int32_t sum, const int8_t *x, const int8_t *w, int32_t count, int32_t zero)
{
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP)
    /* Four at a time: the even bytes as two halves of a word, then the odd ones. A sum that overflows wraps around. */
    const uint32_t minus = ((uint32_t)-zero & UINT32_C(0xffff)) * UINT32_C(0x10001);
    for (; count >= 4; count -= 4, x += 4, w += 4) {
        uint32_t a, b;
        __builtin_memcpy(&a, x, 4);
        __builtin_memcpy(&b, w, 4);
        const int16x2_t even = __sxtab16((int16x2_t)minus, (int8x4_t)a);
        const int16x2_t odd = __sxtab16((int16x2_t)minus, (int8x4_t)(a >> 8));
        sum = __smlad(even, __sxtb16((int8x4_t)b), sum);
        sum = __smlad(odd, __sxtb16((int8x4_t)(b >> 8)), sum);
    }
#endif
    for (; count > 0; count--) {
        sum += (*x++ - zero) * *w++;
    }
    return sum;
}
