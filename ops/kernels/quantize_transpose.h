// Transposes of bytes, sixteen by sixteen in registers.
#pragma once

#include <stdint.h>
#include <string.h>

namespace klr {
namespace KLR_ISA {

typedef uint8_t Sixteen __attribute__((vector_size(16)));

#ifdef __clang__
#define KLR_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define KLR_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Sixteen{__VA_ARGS__})
#endif

// to[c * to_stride + r] = from[r * from_stride + c] for sixteen rows and columns: rows i and i + 8 are interleaved four times.
inline void transpose_sixteen(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride) {
  Sixteen a[16], b[16];
  for (int i = 0; i < 16; ++i) memcpy(&a[i], from + i * from_stride, 16);
  for (int step = 0; step < 4; ++step) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = KLR_SHUFFLE(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      b[2 * i + 1] = KLR_SHUFFLE(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i) memcpy(to + i * to_stride, &a[i], 16);
}

#undef KLR_SHUFFLE

// The same for any number of rows and columns.
inline void transpose(const uint8_t* __restrict from, int64_t from_stride, int64_t rows, int64_t columns,
                      uint8_t* __restrict to, int64_t to_stride) {
  const int64_t whole_rows = rows / 16 * 16, whole_columns = columns / 16 * 16;
  for (int64_t c = 0; c < whole_columns; c += 16) {
    for (int64_t r = 0; r < whole_rows; r += 16) {
      transpose_sixteen(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

}  // namespace KLR_ISA
}  // namespace klr
