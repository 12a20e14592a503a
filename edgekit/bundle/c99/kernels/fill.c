static void fill(int8_t *output, int8_t value, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        output[i] = value;
    }
}
