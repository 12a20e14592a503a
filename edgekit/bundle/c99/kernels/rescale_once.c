/* x * multiplier / 2^(32 + shift), rounded once, ties away from zero, for 0 <= multiplier <= 2^53: what LiteRT's linear
   layer computes in doubles. The product has more than 64 bits; the lowest 32 don't count. shift >= 1. */
static int32_t rescale_once(int32_t x, int64_t multiplier, int32_t shift)
{
    const uint64_t size = x < 0 ? 0U - (uint64_t)x : (uint64_t)x;
    const uint64_t m = (uint64_t)multiplier;
    const uint64_t high = size * (m >> 32) + ((size * (m & UINT32_C(0xffffffff))) >> 32);
    const int32_t found = (int32_t)((high + (UINT64_C(1) << (shift - 1))) >> shift);
    return x < 0 ? -found : found;
}
