/* Of taps `step` apart from `start` on: the first that doesn't lie in front of the input. */
static int32_t first_inside(int32_t start, int32_t step)
{
    return start < 0 ? (step - 1 - start) / step : 0;
}

/* The one behind the last that lies in an input of that size. */
static int32_t end_inside(int32_t start, int32_t step, int32_t taps, int32_t size)
{
    const int32_t end = start < size ? (size - start - 1) / step + 1 : 0;
    return end < taps ? end : taps;
}
