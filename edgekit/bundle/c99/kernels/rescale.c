/* x * multiplier / 2^31 * 2^shift: rounded twice, as LiteRT does. A left shift wraps around. */
static int32_t rescale(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return high_mul((int32_t)((uint32_t)x << shift), multiplier);
    }
    return rounding_shift(high_mul(x, multiplier), -shift);
}
