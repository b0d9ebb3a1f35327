// Pieces of a tensor: where they are, their numbers as float32 rows of whole blocks, and random bits for these.
#pragma once

#include <string.h>

#include "quantize_hadamard.h"
#include "quantize_table.h"

namespace kl {
namespace KL_ISA {

constexpr int64_t kLanes = 32;  // counters of Philox at once, a loop that compilers turn into vectors (16 are unrolled)
constexpr int64_t kBuffer = KL_LARGEST_BLOCK;  // entries of a piece at most
constexpr int64_t kBlocks = 4096;              // of a row of a piece at most

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Where a piece is: its first row (of one of `others`) and column, how many of them there are, and how many columns fill
// blocks.
struct Piece {
  int64_t other, row, column, height, width, padded;

  Piece(const Cut& cut, int64_t other, int64_t row, int64_t column)
      : other(other),
        row(row),
        column(column),
        height(least(cut.height, cut.rows - row)),
        width(least(cut.width, cut.columns - column)),
        padded(up_to(width, cut.block_columns)) {}

  // The place of its first entry, and the distances to the next row and column.
  int64_t first(const Cut& cut) const {
    const int64_t all = other * cut.rows + row, o = all / cut.inner, i = all % cut.inner;
    return (o * cut.columns + column) * cut.inner + i;
  }
  int64_t row_stride(const Cut& cut) const { return cut.inner == 1 ? cut.columns : 1; }

  // The row of codes, and of blocks.
  int64_t code_row(const Cut& cut) const { return other * up_to(cut.rows, cut.block_rows) + row; }
  int64_t block_row(const Cut& cut) const { return code_row(cut) / cut.block_rows; }
};

// n entries, side by side or not.
template <class T>
void widen(const T* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}
template <class T>
void narrow(const float* __restrict from, int64_t n, T* __restrict to) {
  for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

// Rows of a piece, filled with zeros.
struct Rows {
  const float* data;
  int64_t stride;
};

inline int64_t whole_rows(const Cut& cut, const Piece& piece) { return up_to(piece.height, cut.block_rows); }

// Rows of a piece in float32, and rotated if the quantizer says so.
template <class T>
Rows read(const Quantizing& q, const Piece& piece, const T* x, float* __restrict buffer) {
  const Cut& cut = q.cut;
  const int hadamard = q.quantizer.hadamard;
  const T* from = x + piece.first(cut);
  const int64_t stride = piece.row_stride(cut), rows = whole_rows(cut, piece);
  if constexpr (sizeof(T) == 4) {
    if (!hadamard && cut.inner == 1 && piece.padded == piece.width && rows == piece.height) return {from, stride};
  }
  if (piece.padded != piece.width || rows != piece.height) memset(buffer, 0, 4 * rows * piece.padded);
  if (cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) widen(from + r * stride, piece.width, buffer + r * piece.padded);
  } else {
    for (int64_t k = 0; k < piece.width; ++k) {
      for (int64_t r = 0; r < piece.height; ++r) buffer[r * piece.padded + k] = load(from[k * cut.inner + r]);
    }
  }
  for (int64_t r = 0; hadamard && r < piece.height; ++r) {
    transform(hadamard, q.quantizer.signs, piece.width, buffer + r * piece.padded);
  }
  return {buffer, piece.padded};
}

// Where a piece can be written as float32: in place, or in a buffer that `write` copies from.
template <class T>
float* place(const Cut& cut, const Piece& piece, T* y, float* buffer, int64_t* stride) {
  if constexpr (sizeof(T) == 4) {
    if (cut.inner == 1 && piece.padded == piece.width) {
      *stride = piece.row_stride(cut);
      return y + piece.first(cut);
    }
  }
  *stride = piece.padded;
  return buffer;
}

template <class T>
void write(const Cut& cut, const Piece& piece, const float* from, int64_t stride, T* y) {
  T* to = y + piece.first(cut);
  if (static_cast<const void*>(to) == from) return;
  if (cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) narrow(from + r * stride, piece.width, to + r * piece.row_stride(cut));
  } else {
    for (int64_t k = 0; k < piece.width; ++k) {
      for (int64_t r = 0; r < piece.height; ++r) store(to[k * cut.inner + r], from[r * stride + k]);
    }
  }
}

// Words first ... first + n - 1 of the stream of Philox4x32-10 (Salmon et al. 2011), without their two lowest bits.
inline void random_words(uint64_t first, int64_t n, const uint32_t seed[2], uint32_t* __restrict out) {
  for (uint64_t block = first / 4; block * 4 < first + n; block += kLanes) {
    uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      c0[i] = static_cast<uint32_t>(block + i), c1[i] = c2[i] = c3[i] = 0;
    }
    uint32_t k0 = seed[0], k1 = seed[1];
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
      for (int i = 0; i < kLanes; ++i) {
        const uint64_t a = static_cast<uint64_t>(c0[i]) * 0xD2511F53, b = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57;
        c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
        c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
        c1[i] = static_cast<uint32_t>(b);
        c3[i] = static_cast<uint32_t>(a);
      }
    }
    uint32_t words[4 * kLanes];
    for (int i = 0; i < kLanes; ++i) {
      words[4 * i] = c0[i] >> 2, words[4 * i + 1] = c1[i] >> 2, words[4 * i + 2] = c2[i] >> 2, words[4 * i + 3] = c3[i] >> 2;
    }
    const int64_t skipped = block * 4 < first ? static_cast<int64_t>(first - block * 4) : 0;
    const int64_t done = static_cast<int64_t>(block * 4 + skipped - first);
    memcpy(out + done, words + skipped, 4 * least(4 * kLanes - skipped, n - done));
  }
}

// Noise for a piece, in rows as `read` has them.
inline void draw(const Quantizing& q, const Piece& piece, uint32_t* __restrict noise) {
  const int64_t first = piece.first(q.cut);
  if (piece.padded != piece.width || whole_rows(q.cut, piece) != piece.height) {
    memset(noise, 0, 4 * whole_rows(q.cut, piece) * piece.padded);
  }
  if (q.cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) {
      random_words(first + r * q.cut.columns, piece.width, q.quantizer.seed, noise + r * piece.padded);
    }
    return;
  }
  uint32_t column[kBuffer];
  for (int64_t k = 0; k < piece.width; ++k) {
    random_words(first + k * q.cut.inner, piece.height, q.quantizer.seed, column);
    for (int64_t r = 0; r < piece.height; ++r) noise[r * piece.padded + k] = column[r];
  }
}

template <class Function>
void each_piece(const Cut& cut, int64_t begin, int64_t end, Function f) {
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t segment = piece % cut.segments, strip = piece / cut.segments;
    f(strip / cut.strips, strip % cut.strips * cut.height, segment * cut.width);
  }
}

// Calls f(piece, row) for all pieces, and for parts of a row where it is one block.
template <class Function>
void each_part(const Cut& cut, int64_t begin, int64_t end, Function f) {
  each_piece(cut, begin, end, [&](int64_t other, int64_t row, int64_t column) {
    const int64_t last = cut.by_row ? cut.columns : column + 1;
    for (; column < last; column += cut.width) f(Piece(cut, other, row, column));
  });
}

}  // namespace KL_ISA
}  // namespace kl
