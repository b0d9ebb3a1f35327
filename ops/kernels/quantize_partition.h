// Pieces of a tensor: where they are. Their numbers are float32 in a buffer, filled with zeros up to whole blocks.
//
// A step goes over a whole piece before the next does, so that compilers make full vectors of those that do not depend on
// blocks.
#pragma once

#include <string.h>

#include "quantize_scales.h"
#include "quantize_table.h"

namespace klr {
namespace KLR_ISA {

constexpr int64_t kBuffer = KLR_LARGEST_BLOCK;  // entries of a piece at most

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Where a piece is: its first row (of one of `others`) and column, how many of them there are, and how many fill blocks.
struct Piece {
  int64_t other, row, column, height, width, whole_height, whole_width;

  Piece(const Cut& cut, int64_t other, int64_t row, int64_t column)
      : other(other),
        row(row),
        column(column),
        height(least(cut.height, cut.rows - row)),
        width(least(cut.width, cut.columns - column)),
        whole_height(up_to(height, cut.block_rows)),
        whole_width(up_to(width, cut.block_columns)) {}

  // The place of its first entry.
  int64_t first(const Cut& cut) const {
    const int64_t all = other * cut.rows + row, o = all / cut.inner, i = all % cut.inner;
    return (o * cut.columns + column) * cut.inner + i;
  }
  bool is_whole() const { return height == whole_height && width == whole_width; }

  // Columns of its blocks; one block is all of it where there are parts of larger ones.
  int64_t block_columns(const Cut& cut) const { return cut.whole || cut.by_row ? whole_width : cut.block_columns; }

  // The row of codes, and the number of the first scale.
  int64_t code_row(const Cut& cut) const { return other * up_to(cut.rows, cut.block_rows) + row; }
  int64_t first_scale(const Cut& cut) const {
    if (cut.whole) return 0;
    const int64_t block_row = code_row(cut) / cut.block_rows;
    return cut.by_row ? block_row : block_row * scale_columns(cut) + column / cut.block_columns;
  }
  static int64_t scale_columns(const Cut& cut) {
    return cut.by_row ? 1 : up_to(cut.columns, cut.block_columns) / cut.block_columns;
  }
};

template <class T>
void widen(const T* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}
template <class T>
void narrow(const float* __restrict from, int64_t n, T* __restrict to) {
  for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

template <class Function>
void each_piece(const Cut& cut, int64_t begin, int64_t end, Function f) {
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t segment = piece % cut.segments, strip = piece / cut.segments;
    f(strip / cut.strips, strip % cut.strips * cut.height, segment * cut.width);
  }
}

// Calls f(piece) for all pieces, and for parts of a row where it is one block.
template <class Function>
void each_part(const Cut& cut, int64_t begin, int64_t end, Function f) {
  each_piece(cut, begin, end, [&](int64_t other, int64_t row, int64_t column) {
    const int64_t last = cut.by_row ? cut.columns : column + 1;
    for (; column < last; column += cut.width) f(Piece(cut, other, row, column));
  });
}

}  // namespace KLR_ISA
}  // namespace klr
