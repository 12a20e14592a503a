struct quantize {
    int32_t count, zero;
    float scale;
};

/* To the nearest number of the grid, ties away from zero, without a library of mathematics. What lies beyond the
   grid is clamped, however far away, and NaN becomes the lowest number; LiteRT leaves both to its compiler. */
static void quantize(const float *input, int8_t *output, const struct quantize *p)
{
    for (int32_t i = 0; i < p->count; i++) {
        const float steps = input[i] / p->scale;
        int32_t nearest = -512; /* below every grid */
        if (steps >= 512.0f) {
            nearest = 512;
        } else if (steps > -512.0f) {
            nearest = (int32_t)steps;
            const float rest = steps - (float)nearest;
            nearest += (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
        }
        output[i] = clamp(nearest + p->zero, -128, 127);
    }
}
