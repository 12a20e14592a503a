/* a * b / 2^31, rounded to nearest, ties upwards. Never called with both at INT32_MIN. */
static int32_t high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}
