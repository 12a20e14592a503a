/* A function of one number as a table: for -128 first. */
static void lookup(const int8_t *input, const int8_t *table, int8_t *output, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        output[i] = table[input[i] + 128];
    }
}
