// What memory allows: loops that read and write as quantization does, and compute next to nothing.
#include <stdint.h>

#define ARRAYS const uint32_t *restrict wide, const uint8_t *restrict narrow, uint32_t *restrict to_wide, uint8_t *restrict to_narrow

void read(ARRAYS, int64_t begin, int64_t end) {
  uint32_t all = 0;
  for (int64_t i = begin; i < end; ++i) all |= wide[i];
  to_narrow[begin / 8] = (uint8_t)all;
}

void to_byte(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) to_narrow[i] = (uint8_t)(wide[i] >> 24);
}

void to_nibble(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin / 2; i < end / 2; ++i) to_narrow[i] = (uint8_t)((wide[2 * i] >> 28) | (wide[2 * i + 1] >> 24));
}

void from_byte(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) to_wide[i] = (uint32_t)narrow[i] << 20;
}

void from_nibble(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin / 2; i < end / 2; ++i) {
    to_wide[2 * i] = (uint32_t)narrow[i] << 28;
    to_wide[2 * i + 1] = (uint32_t)narrow[i] << 24;
  }
}

void copy(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) to_wide[i] = wide[i] & 0xfff00000;
}
