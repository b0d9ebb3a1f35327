// Products of int8 matrices, compiled once for each instruction set: KLR_ISA names the one that the flags select.
#include <algorithm>

#include "dtypes.h"
#include "matmul.h"
#include "matmul_lanes.h"
#include "matmul_pack.h"
#include "matmul_table.h"

namespace klr {
namespace KLR_ISA {
namespace {

static_assert(KLR_MATMUL_TILE_ROWS % kRows == 0 && KLR_MATMUL_TILE_COLUMNS % kColumns == 0, "tiles are whole panels");
static_assert(KLR_MATMUL_BLOCK % kRows == 0 && KLR_MATMUL_BLOCK % kLanes == 0, "a panel of A and a vector share a scale");

int64_t scratch(const klr_matmul& product) { return Layout(product, nullptr).bytes; }

int64_t pieces(const klr_matmul& product) {
  const Layout layout(product, nullptr);
  return layout.b_panels + up(layout.a_panels, kPanels);
}

void pack(const klr_matmul& product, void* memory, int64_t begin, int64_t end) {
  const Layout layout(product, memory);
  for (int64_t piece = begin; piece < end; ++piece) {
    if (piece < layout.b_panels) {
      pack_b(product, layout, piece);
    } else {
      pack_a(product, layout, (piece - layout.b_panels) * kPanels);
    }
  }
}

// Sums of kRows by kColumns, which stay in registers.
struct Sums {
  Ints of[kRows][kVectors];

  __attribute__((always_inline)) void start(const int32_t* starts) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) of[i][v] = Ints{} + starts[i];
    }
  }

  __attribute__((always_inline)) void add(const int32_t* from, int64_t stride) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) of[i][v] += load_vector<Ints>(from + i * stride + v * kLanes);
    }
  }

  __attribute__((always_inline)) void add(const PackedA* __restrict a, const PackedB* __restrict b, int64_t groups) {
    for (int64_t g = 0; g < groups; ++g, a += kRows * kGroup, b += kColumns * kGroup) {
      Ints columns[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) columns[v] = load_vector<Ints>(b + v * kLanes * kGroup);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        int32_t row;
        memcpy(&row, a + i * kGroup, 4);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) of[i][v] = dot(of[i][v], row, columns[v]);
      }
    }
  }

  __attribute__((always_inline)) void store(int32_t* to, int64_t stride) const {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) store_vector(to + i * stride + v * kLanes, of[i][v]);
    }
  }
};

// The place of a panel of A and a panel of B in C, and of a part of k.
struct Place {
  int64_t row, column, rows, columns;  // first ones, and how many lie in C
  int64_t group, groups, step;
  bool first, last;  // of the parts of k
};

// Numbers of C between int32 and the float32 that takes its place.
void scale_row(int32_t* __restrict c, int64_t columns, float scale, const float* __restrict scales, int64_t scales_size) {
  if (scales_size == 1) {
    const float both = scale * scales[0];
    for (int64_t j = 0; j < columns; ++j) c[j] = bits_of(static_cast<float>(c[j]) * both);
  } else {
    for (int64_t j = 0; j < columns; ++j) c[j] = bits_of(static_cast<float>(c[j]) * (scale * scales[j]));
  }
}

// Adds a panel's sums to C, which holds int32 until the last part of k is in.
void integers(const klr_matmul& product, const Layout& layout, const Place& at) {
  const int64_t a_panel = at.row / kRows, b_panel = at.column / kColumns;
  int32_t beside[kRows * kColumns];  // where the panels reach beyond C
  int32_t* c = static_cast<int32_t*>(product.c) + at.row * product.n + at.column;
  const bool whole = at.rows == kRows && at.columns == kColumns;
  int32_t* to = whole ? c : beside;
  const int64_t stride = whole ? product.n : int64_t{kColumns};
  const auto copy = [&](int32_t* to, int64_t to_stride, const int32_t* from, int64_t from_stride) {
    for (int64_t i = 0; i < at.rows; ++i) memcpy(to + i * to_stride, from + i * from_stride, at.columns * 4);
  };
  if (!whole && !at.first) copy(beside, kColumns, c, product.n);
  Sums sums;
  sums.start(layout.start(a_panel) + at.step * kRows);
  if (!at.first) sums.add(to, stride);
  sums.add(layout.a_panel(a_panel) + at.group * kRows * kGroup, layout.b_panel(b_panel) + at.group * kColumns * kGroup,
           at.groups);
  sums.store(to, stride);
  if (!whole) copy(c, product.n, beside, kColumns);
  if (at.last && product.output == KLR_MATMUL_SCALED) {
    for (int64_t i = 0; i < at.rows; ++i) {
      const float scale = product.a_scales[product.a_scales_size == 1 ? 0 : at.row + i];
      const float* scales = product.b_scales + (product.b_scales_size == 1 ? 0 : at.column);
      scale_row(c + i * product.n, at.columns, scale, scales, product.b_scales_size);
    }
  }
}

// The scale of a block, by the numbers of its row and its column.
float block_scale(const float* scales, int64_t row, int64_t column, int64_t rows, int64_t columns, int32_t transposed) {
  return transposed ? scales[column * up(rows, KLR_MATMUL_BLOCK) + row] : scales[row * up(columns, KLR_MATMUL_BLOCK) + column];
}

// Adds a panel's sums over each block of k, times its scales, to C.
void blocks(const klr_matmul& product, const Layout& layout, const Place& at) {
  const int64_t a_panel = at.row / kRows, b_panel = at.column / kColumns;
  float sums[kRows * kColumns] = {};
  float* c = static_cast<float*>(product.c) + at.row * product.n + at.column;
  for (int64_t i = 0; i < at.rows && !at.first; ++i) memcpy(sums + i * kColumns, c + i * product.n, at.columns * sizeof(float));
  const PackedA* a = layout.a_panel(a_panel) + at.group * kRows * kGroup;
  const PackedB* b = layout.b_panel(b_panel) + at.group * kColumns * kGroup;
  const int64_t last_block = up(product.n, KLR_MATMUL_BLOCK) - 1;
  constexpr int64_t kGroups = KLR_MATMUL_BLOCK / kGroup;
  for (int64_t done = 0, step = at.step; done < at.groups; done += kGroups, ++step) {
    Sums own;
    own.start(layout.start(a_panel) + step * kRows);
    own.add(a + done * kRows * kGroup, b + done * kColumns * kGroup, std::min(kGroups, at.groups - done));
    const float a_scale =
        block_scale(product.a_scales, at.row / KLR_MATMUL_BLOCK, step, product.m, product.k, product.transpose_a);
    float scales[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = std::min((at.column + v * kLanes) / KLR_MATMUL_BLOCK, last_block);
      scales[v] = a_scale * block_scale(product.b_scales, step, column, product.k, product.n, product.transpose_b);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        float* to = sums + i * kColumns + v * kLanes;
        store_vector(to, load_vector<Floats>(to) + __builtin_convertvector(own.of[i][v], Floats) * scales[v]);
      }
    }
  }
  for (int64_t i = 0; i < at.rows; ++i) memcpy(c + i * product.n, sums + i * kColumns, at.columns * sizeof(float));
}

// One part of k after the other; a panel of B meets all panels of A of the tile while it is in the first cache.
void compute_tile(const klr_matmul& product, const Layout& layout, int64_t top, int64_t left) {
  const int64_t bottom = std::min(product.m, top + KLR_MATMUL_TILE_ROWS);
  const int64_t right = std::min(product.n, left + KLR_MATMUL_TILE_COLUMNS);
  const auto of_panel = product.output == KLR_MATMUL_BLOCKS ? blocks : integers;
  constexpr int64_t kGroups = kDepth / kGroup;
  Place at;
  for (at.group = 0; at.group == 0 || at.group < layout.groups; at.group += kGroups) {
    at.groups = std::min(kGroups, layout.groups - at.group);
    at.step = at.group * kGroup / layout.step;
    at.first = at.group == 0, at.last = at.group + kGroups >= layout.groups;
    for (at.column = left; at.column < right; at.column += kColumns) {
      at.columns = std::min<int64_t>(kColumns, product.n - at.column);
      for (at.row = top; at.row < bottom; at.row += kRows) {
        at.rows = std::min<int64_t>(kRows, product.m - at.row);
        of_panel(product, layout, at);
      }
    }
  }
}

void compute(const klr_matmul& product, const void* memory, int64_t begin, int64_t end) {
  const Layout layout(product, const_cast<void*>(memory));  // only read
  const int64_t across = up(product.n, KLR_MATMUL_TILE_COLUMNS);
  for (int64_t tile = begin; tile < end; ++tile) {
    compute_tile(product, layout, tile / across * KLR_MATMUL_TILE_ROWS, tile % across * KLR_MATMUL_TILE_COLUMNS);
  }
}

}  // namespace

extern const MatmulTable matmul_table = {scratch, pieces, pack, compute};

}  // namespace KLR_ISA
}  // namespace klr
