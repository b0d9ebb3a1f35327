// Pieces of a tensor that is quantized along its last axis: they are rows, one or those of a block.
#pragma once

#include "quantize_codes.h"
#include "quantize_hadamard.h"
#include "quantize_partition.h"
#include "quantize_random.h"

namespace klr {
namespace KLR_ISA {

inline int32_t size_of(float x) { return static_cast<int32_t>(bits_of(x) & ~kSign); }
inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

// The bits of the largest magnitude.
inline uint32_t largest_of(const float* __restrict x, int64_t n) {
  int32_t largest = 0;
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) largest = larger(largest, size_of(x[i]));
  return static_cast<uint32_t>(largest);
}

// Of each of the blocks of 16: of neighbors, of pairs of neighbors, and so on.
inline void largest_of_sixteens(const float* __restrict x, int64_t blocks, uint32_t* __restrict amax) {
  constexpr int64_t kTogether = 32;  // blocks
  int32_t a[8 * kTogether], b[4 * kTogether];
  for (int64_t first = 0; first < blocks; first += kTogether) {
    const int64_t n = least(kTogether, blocks - first);
    const float* from = x + 16 * first;
    for (int64_t i = 0; i < 8 * n; ++i) a[i] = larger(size_of(from[2 * i]), size_of(from[2 * i + 1]));
    for (int64_t i = 0; i < 4 * n; ++i) b[i] = larger(a[2 * i], a[2 * i + 1]);
    for (int64_t i = 0; i < 2 * n; ++i) a[i] = larger(b[2 * i], b[2 * i + 1]);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t largest = static_cast<uint32_t>(larger(a[2 * i], a[2 * i + 1]));
      amax[first + i] = largest > amax[first + i] ? largest : amax[first + i];
    }
  }
}

// N: the size of a block where that is known.
template <int64_t N>
void largest_of_blocks(const float* __restrict x, int64_t n, int64_t blocks, uint32_t* __restrict amax) {
  for (int64_t b = 0; b < blocks; ++b) {
    const uint32_t largest = largest_of(x + b * (N ? N : n), N ? N : n);
    amax[b] = largest > amax[b] ? largest : amax[b];
  }
}

// Numbers in units of the element. They are 0 where the factor of their block is, whatever they are.
template <bool kDivide, int64_t N>
void divide_blocks(const float* __restrict x, int64_t n, int64_t blocks, const Scale* __restrict scales,
                   float* __restrict units) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    const float factor = scales[b].factor;
    for (int64_t i = b * size; i < (b + 1) * size; ++i) {
      units[i] = factor == 0 ? 0 : kDivide ? x[i] / factor : x[i] * factor;
    }
  }
}

// And back, in place or not. What may be below 2^-126 is rounded as in the plain path.
template <int64_t N>
void multiply_blocks(const float* units, int64_t n, int64_t blocks, bool exact, const Scale* __restrict scales, float* y) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    const float scale = scales[b].scale;
    if (!exact && scale < kSmallScale) {
      for (int64_t i = b * size; i < (b + 1) * size; ++i) y[i] = product(units[i], scale);
    } else {
      for (int64_t i = b * size; i < (b + 1) * size; ++i) y[i] = units[i] * scale;
    }
  }
}

// Sums in the order of the plain path: the second half of the rows is added to the first, until one is left,
inline void add_rows(float* x, int64_t rows, int64_t columns) {
  for (int64_t half; rows > 1; rows -= half) {
    half = rows / 2;
    float* __restrict first = x, * __restrict second = x + half * columns;
    for (int64_t i = 0; i < half * columns; ++i) first[i] += second[i];
    if (rows % 2) memmove(second, x + 2 * half * columns, 4 * columns);
  }
}

template <int kHalf>
inline void add_halves(const float* __restrict x, int64_t groups, float* __restrict y) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int i = 0; i < kHalf; ++i) y[g * kHalf + i] = x[2 * g * kHalf + i] + x[(2 * g + 1) * kHalf + i];
  }
}

// and the same within each group of n numbers.
inline void sum_groups(const float* x, int64_t n, int64_t groups, float* sums) {
  float a[kBuffer / 2], b[kBuffer / 4];
  if (n == 16) {
    add_halves<8>(x, groups, a), add_halves<4>(a, groups, b);
    add_halves<2>(b, groups, a), add_halves<1>(a, groups, sums);
    return;
  }
  for (int64_t g = 0; g < groups; ++g, x += n) {
    float group[kBuffer];
    memcpy(group, x, 4 * n);
    add_rows(group, n, 1);
    sums[g] = group[0];
  }
}

// A piece of `entries` numbers has a scale for each of its blocks, which lie side by side.
struct InRows {
  const Cut& cut;
  const Piece piece;
  const int64_t rows, columns, entries, n, scales;

  InRows(const Cut& cut, const Piece& piece)
      : cut(cut),
        piece(piece),
        rows(piece.whole_height),
        columns(piece.whole_width),
        entries(rows * columns),
        n(piece.block_columns(cut)),
        scales(columns / n) {}

  // The numbers, rotated if the quantizer has a transform: in the tensor itself if they lie there as in the buffer. Several
  // rows never do: if they are a power of two apart, few of them fit into a cache at once.
  template <class T>
  const float* read(const klr_quantizer& q, const T* x, float* __restrict buffer) const {
    const T* from = x + piece.first(cut);
    if constexpr (sizeof(T) == 4) {
      if (!q.hadamard && rows == 1 && piece.is_whole()) return from;
    }
    if (!piece.is_whole()) memset(buffer, 0, 4 * entries);
    for (int64_t r = 0; r < piece.height; ++r) {
      widen(from + r * cut.columns, piece.width, buffer + r * columns);
      if (q.hadamard) transform(q.hadamard, q.signs, piece.width, buffer + r * columns);
    }
    return buffer;
  }

  // Where results can be written, in the tensor itself or in a buffer, and from there to the tensor.
  template <class T>
  float* place(T* y, float* buffer) const {
    if constexpr (sizeof(T) == 4) {
      if (rows == 1 && piece.is_whole()) return y + piece.first(cut);
    }
    return buffer;
  }

  template <class T>
  void write(const float* from, T* y) const {
    T* to = y + piece.first(cut);
    if (static_cast<const void*>(to) == from) return;
    for (int64_t r = 0; r < piece.height; ++r) narrow(from + r * columns, piece.width, to + r * cut.columns);
  }

  void draw(const uint32_t seed[2], uint32_t* noise) const {
    if (!piece.is_whole()) memset(noise, 0, 4 * entries);
    random_words(piece.first(cut), cut.columns, piece.height, piece.width, seed, noise, columns);
  }

  void find_largest(const float* x, uint32_t* __restrict amax) const {
    memset(amax, 0, 4 * scales);
    for (int64_t r = 0; r < rows; ++r, x += columns) {
      n == 16   ? largest_of_sixteens(x, scales, amax)
      : n == 32 ? largest_of_blocks<32>(x, n, scales, amax)
                : largest_of_blocks<0>(x, n, scales, amax);
    }
  }

  template <bool kDivide>
  void divide(const float* x, const Scale* by, float* units) const {
    for (int64_t r = 0; r < rows; ++r, x += columns, units += columns) {
      n == 16   ? divide_blocks<kDivide, 16>(x, n, scales, by, units)
      : n == 32 ? divide_blocks<kDivide, 32>(x, n, scales, by, units)
                : divide_blocks<kDivide, 0>(x, n, scales, by, units);
    }
  }

  void multiply(const float* units, bool exact, const Scale* by, float* y) const {
    for (int64_t r = 0; r < rows; ++r, units += columns, y += columns) {
      n == 16   ? multiply_blocks<16>(units, n, scales, exact, by, y)
      : n == 32 ? multiply_blocks<32>(units, n, scales, exact, by, y)
                : multiply_blocks<0>(units, n, scales, exact, by, y);
    }
  }

  // The sum of each block of x, which is overwritten.
  void sum(float* x, float* sums) const {
    add_rows(x, rows, columns);
    sum_groups(x, n, scales, sums);
  }

  // Codes of all entries, a byte each, go to rows of bytes that are `stride` apart.
  void put(int bits, const uint8_t* codes, uint8_t* to, int64_t stride) const {
    to += piece.code_row(cut) * stride + piece.column * bits / 8;
    for (int64_t r = 0; r < rows; ++r) pack(bits, codes + r * columns, columns, to + r * stride);
  }

  void get(int bits, const uint8_t* from, int64_t stride, uint8_t* codes) const {
    from += piece.code_row(cut) * stride + piece.column * bits / 8;
    for (int64_t r = 0; r < rows; ++r) unpack(bits, from + r * stride, columns, codes + r * columns);
  }

  // f(number of a scale of the piece, number among those that are stored)
  template <class Function>
  void each_scale(Function f) const {
    const int64_t first = piece.first_scale(cut);
    for (int64_t b = 0; b < scales; ++b) f(b, first + b);
  }
};

}  // namespace KLR_ISA
}  // namespace klr
