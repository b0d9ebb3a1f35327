// Pieces of a tensor that is quantized along another axis than its last: lines of neighbors in memory, one for each place
// along the axis. Blocks stand upright in them, side by side, so that each step goes along whole lines; bytes of codes are
// transposed at the end.
#pragma once

#include "quantize_contiguous.h"
#include "quantize_transpose.h"

namespace klr {
namespace KLR_ISA {

// Lines of bytes, each of two lines of 4 bits, or three of four lines of 6 bits.
inline void pack_lines(int bits, const uint8_t* __restrict codes, int64_t lines, int64_t n, uint8_t* __restrict packed) {
  if (bits == 4) {
    for (int64_t k = 0; k < lines; k += 2, codes += 2 * n, packed += n) {
      for (int64_t i = 0; i < n; ++i) packed[i] = static_cast<uint8_t>(codes[i] | codes[n + i] << 4);
    }
  } else if (bits == 6) {
    for (int64_t k = 0; k < lines; k += 4, codes += 4 * n, packed += 3 * n) {
      for (int64_t i = 0; i < n; ++i) {
        const uint8_t a = codes[i], b = codes[n + i], c = codes[2 * n + i], d = codes[3 * n + i];
        packed[i] = static_cast<uint8_t>(a | b << 6), packed[n + i] = static_cast<uint8_t>(b >> 2 | c << 4);
        packed[2 * n + i] = static_cast<uint8_t>(c >> 4 | d << 2);
      }
    }
  } else {
    memcpy(packed, codes, lines * n);
  }
}

inline void unpack_lines(int bits, const uint8_t* __restrict packed, int64_t lines, int64_t n, uint8_t* __restrict codes) {
  if (bits == 4) {
    for (int64_t k = 0; k < lines; k += 2, codes += 2 * n, packed += n) {
      for (int64_t i = 0; i < n; ++i) codes[i] = packed[i] & 15, codes[n + i] = packed[i] >> 4;
    }
  } else if (bits == 6) {
    for (int64_t k = 0; k < lines; k += 4, codes += 4 * n, packed += 3 * n) {
      for (int64_t i = 0; i < n; ++i) {
        const uint8_t a = packed[i], b = packed[n + i], c = packed[2 * n + i];
        codes[i] = a & 63, codes[n + i] = static_cast<uint8_t>(a >> 6 | (b & 15) << 2);
        codes[2 * n + i] = static_cast<uint8_t>(b >> 4 | (c & 3) << 4), codes[3 * n + i] = c >> 2;
      }
    }
  } else {
    memcpy(codes, packed, lines * n);
  }
}

template <bool kDivide>
void divide_lines(const float* __restrict x, int64_t lines, int64_t n, const float* __restrict factors,
                  float* __restrict units) {
  for (int64_t k = 0; k < lines; ++k, x += n, units += n) {
    for (int64_t i = 0; i < n; ++i) units[i] = factors[i] == 0 ? 0 : kDivide ? x[i] / factors[i] : x[i] * factors[i];
  }
}

template <class Numbers>
void multiply_lines(const float* units, int64_t lines, int64_t n, const float* __restrict scales, float* y) {
  for (int64_t k = 0; k < lines; ++k, units += n, y += n) {
    for (int64_t i = 0; i < n; ++i) y[i] = Numbers::product(units[i], scales[i]);
  }
}

// `height` neighbors of each of `lines` lines. A block has a scale for each of its columns, the same for those of all its
// rows.
struct InLines {
  const Cut& cut;
  const Piece piece;
  const int64_t height, lines, entries, n, blocks, scales;

  InLines(const Cut& cut, const Piece& piece)
      : cut(cut),
        piece(piece),
        height(piece.whole_height),
        lines(piece.whole_width),
        entries(height * lines),
        n(piece.block_columns(cut)),
        blocks(lines / n),
        scales(height * blocks) {}

  template <class T>
  const float* read(const klr_quantizer& q, const T* x, float* buffer) const {
    const T* from = x + piece.first(cut);
    if (!piece.is_whole()) memset(buffer, 0, 4 * entries);
    for (int64_t k = 0; k < piece.width; ++k) widen(from + k * cut.inner, piece.height, buffer + k * height);
    if (q.hadamard) transform_lines(q.hadamard, q.signs, piece.width, piece.height, buffer, height);
    return buffer;
  }

  template <class T>
  float* place(T*, float* buffer) const {
    return buffer;
  }

  template <class T>
  void write(const float* from, T* y) const {
    T* to = y + piece.first(cut);
    for (int64_t k = 0; k < piece.width; ++k) narrow(from + k * height, piece.height, to + k * cut.inner);
  }

  void draw(const uint32_t seed[2], uint32_t* noise) const {
    if (!piece.is_whole()) memset(noise, 0, 4 * entries);
    random_words(piece.first(cut), cut.inner, piece.width, piece.height, seed, noise, height);
  }

  void find_largest(const float* __restrict x, uint32_t* __restrict amax) const {
    memset(amax, 0, 4 * scales);
    for (int64_t b = 0; b < blocks; ++b, amax += height) {
      for (int64_t k = 0; k < n; ++k, x += height) {
        for (int64_t i = 0; i < height; ++i) {
          amax[i] = static_cast<uint32_t>(larger(static_cast<int32_t>(amax[i]), size_of(x[i])));
        }
      }
      for (int64_t i = 0; cut.block_rows > 1 && i < height; i += cut.block_rows) {
        uint32_t largest = 0;
        for (int64_t j = i; j < i + cut.block_rows; ++j) largest = amax[j] > largest ? amax[j] : largest;
        for (int64_t j = i; j < i + cut.block_rows; ++j) amax[j] = largest;
      }
    }
  }

  template <bool kDivide>
  void divide(const float* x, const Scale* by, float* units) const {
    float factors[kScales];
    for (int64_t b = 0; b < blocks; ++b, by += height, x += n * height, units += n * height) {
      for (int64_t i = 0; i < height; ++i) factors[i] = by[i].factor;
      divide_lines<kDivide>(x, n, height, factors, units);
    }
  }

  void multiply(const float* units, bool exact, const Scale* by, float* y) const {
    float own[kScales];
    for (int64_t b = 0; b < blocks; ++b, by += height, units += n * height, y += n * height) {
      bool small = false;
      for (int64_t i = 0; i < height; ++i) own[i] = by[i].scale, small |= by[i].scale < kSmallScale;
      !exact&& small ? multiply_lines<AllNumbers>(units, n, height, own, y)
                     : multiply_lines<OrdinaryNumbers>(units, n, height, own, y);
    }
  }

  // The sum of each block of x, which is overwritten.
  void sum(float* x, float* sums) const {
    const int64_t rows = cut.block_rows, groups = height / rows;
    for (int64_t b = 0; b < blocks; ++b, x += n * height, sums += height) {
      for (int64_t k = 0; rows > 1 && k < n; ++k) {
        float own[kScales];
        sum_groups(x + k * height, rows, groups, own);
        memcpy(x + k * groups, own, 4 * groups);
      }
      add_rows(x, n, groups);
      for (int64_t i = 0; i < height; ++i) sums[i] = x[i / rows];
    }
  }

  // Codes of all entries, a byte each, go to rows of bytes that are `stride` apart.
  void put(int bits, const uint8_t* codes, uint8_t* to, int64_t stride) const {
    uint8_t packed[kBuffer], rows[kBuffer];
    const int64_t bytes = lines * bits / 8;
    pack_lines(bits, codes, lines, height, packed);
    transpose(packed, height, bytes, height, rows, bytes);
    to += piece.code_row(cut) * stride + piece.column * bits / 8;
    for (int64_t r = 0; r < height; ++r) memcpy(to + r * stride, rows + r * bytes, bytes);
  }

  void get(int bits, const uint8_t* from, int64_t stride, uint8_t* codes) const {
    uint8_t packed[kBuffer], rows[kBuffer];
    const int64_t bytes = lines * bits / 8;
    from += piece.code_row(cut) * stride + piece.column * bits / 8;
    for (int64_t r = 0; r < height; ++r) memcpy(rows + r * bytes, from + r * stride, bytes);
    transpose(rows, bytes, height, bytes, packed, height);
    unpack_lines(bits, packed, lines, height, codes);
  }

  // f(number of a scale of the piece, number among those that are stored)
  template <class Function>
  void each_scale(Function f) const {
    const int64_t first = piece.first_scale(cut), stride = cut.whole ? 0 : Piece::scale_columns(cut);
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t b = 0; b < blocks; ++b) f(b * height + i, first + i / cut.block_rows * stride + b);
    }
  }
};

}  // namespace KLR_ISA
}  // namespace klr
