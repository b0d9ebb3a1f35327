// Packing: panels of kRows rows of A and of kColumns columns of B, filled with zeros, in the order in which they are
// multiplied.
#pragma once

#include "matmul.h"
#include "matmul_lanes.h"

namespace klr {
namespace KLR_ISA {

constexpr int64_t kDepth = 512;  // of k at a time: a panel of B stays in the first cache meanwhile

inline int64_t up(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Where things are in scratch memory. A panel has `groups` groups of kGroup neighbors in k; a group takes 4 bytes a row.
struct Layout {
  int64_t groups, a_panels, b_panels;
  int64_t step, steps;  // neighbors in k that one sum starts with, and how many such sums there are
  int32_t* starts;      // where the sums of a row start: (a_panels, steps, kRows)
  PackedA* a;           // (a_panels, groups, kRows, kGroup)
  PackedB* b;           // (b_panels, groups, kColumns, kGroup)
  int64_t bytes;

  Layout(const klr_matmul& product, void* scratch) {
    groups = up(product.k, kGroup);
    a_panels = up(product.m, kRows), b_panels = up(product.n, kColumns);
    step = product.output == KLR_MATMUL_BLOCKS ? int64_t{KLR_MATMUL_BLOCK} : kDepth;
    steps = product.k > step ? up(product.k, step) : 1;
    const int64_t b_bytes = line(b_panels * groups * kColumns * 4), a_bytes = line(a_panels * groups * kRows * 4);
    char* memory = static_cast<char*>(scratch);
    b = reinterpret_cast<PackedB*>(memory);
    a = reinterpret_cast<PackedA*>(memory + b_bytes);
    starts = reinterpret_cast<int32_t*>(memory + b_bytes + a_bytes);
    bytes = b_bytes + a_bytes + line(a_panels * steps * kRows * 4);
  }

  static int64_t line(int64_t bytes) { return up(bytes, 64) * 64; }

  PackedA* a_panel(int64_t panel) const { return a + panel * groups * kRows * kGroup; }
  PackedB* b_panel(int64_t panel) const { return b + panel * groups * kColumns * kGroup; }
  int32_t* start(int64_t panel) const { return starts + panel * steps * kRows; }
};

// `lines` neighbors in one axis become a panel of kWidth. Number p of line i is from[i * line + p * next]; either `line` or
// `next` is 1.
template <int kWidth, class Packed, class Convert>
void pack_panel(const int8_t* __restrict from, int64_t line, int64_t next, int64_t lines, int64_t k, Packed* __restrict to,
                Convert convert) {
  const int64_t whole = lines < kWidth ? 0 : k / kGroup;
  if (next == 1) {
    constexpr int64_t kLine = 64 / kGroup;  // a line of the cache at a time: lines may be a power of two apart
    for (int64_t first = 0; first < whole; first += kLine) {
      const int64_t end = first + kLine < whole ? first + kLine : whole;
      for (int i = 0; i < kWidth; ++i) {
        for (int64_t g = first; g < end; ++g) {
          int8_t group[kGroup];
          memcpy(group, from + i * line + g * kGroup, kGroup);
          for (int q = 0; q < kGroup; ++q) to[(g * kWidth + i) * kGroup + q] = convert(group[q]);
        }
      }
    }
  } else {
    for (int64_t g = 0; g < whole; ++g) {
      const int8_t* rows = from + g * kGroup * next;
      Packed* group = to + g * kWidth * kGroup;
      for (int i = 0; i < kWidth; ++i) {
        for (int q = 0; q < kGroup; ++q) group[i * kGroup + q] = convert(rows[q * next + i]);
      }
    }
  }
  for (int64_t g = whole; g < up(k, kGroup); ++g) {  // what is not whole
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t q = 0; q < kGroup; ++q) {
        const int64_t p = g * kGroup + q;
        to[(g * kWidth + i) * kGroup + q] = convert(i < lines && p < k ? from[i * line + p * next] : int8_t{0});
      }
    }
  }
}

// Where the sums of the rows of a panel start: at -kShift times the sum of the row, for each step of k.
inline void fill_starts(const PackedA* packed, const Layout& layout, int32_t* starts) {
  constexpr int64_t kAtOnce = kLanes / kRows;  // groups in a vector
  const int64_t groups = layout.step / kGroup;
  for (int64_t s = 0; s < layout.steps; ++s) {
    int64_t g = s * groups;
    const int64_t end = g + groups < layout.groups ? g + groups : layout.groups;
    int32_t sums[kLanes] = {};
    if (kShift) {
      Ints many = {};
      for (; g + kAtOnce <= end; g += kAtOnce) many = add_group(many, load_vector<Ints>(packed + g * kRows * kGroup));
      store_vector(sums, many);
      for (int i = kRows; i < kLanes; ++i) sums[i % kRows] += sums[i];
      for (; g < end; ++g) {
        for (int i = 0; i < kRows * kGroup; ++i) sums[i / kGroup] += packed[g * kRows * kGroup + i];
      }
    }
    for (int i = 0; i < kRows; ++i) starts[s * kRows + i] = -kShift * sums[i];
  }
}

constexpr int64_t kPanels = 16;  // of A, packed together: whole lines of the cache are read, whichever way A lies

// Packs panels of A from the number `first` on: some groups of all of them together, which then go to their panels.
inline void pack_a(const klr_matmul& product, const Layout& layout, int64_t first) {
  constexpr int64_t kTogether = 16;  // groups
  const int64_t line = product.transpose_a ? 1 : product.k, next = product.transpose_a ? product.m : 1;
  const int64_t row = first * kRows, panels = first + kPanels < layout.a_panels ? kPanels : layout.a_panels - first;
  PackedA together[kTogether][kPanels][kRows * kGroup];
  for (int64_t g = 0; g < layout.groups; g += kTogether) {
    const int64_t p = g * kGroup, left = product.k - p;
    const int64_t groups = g + kTogether < layout.groups ? kTogether : layout.groups - g;
    pack_panel<kPanels * kRows>(product.a + row * line + p * next, line, next, product.m - row,
                                left < kTogether * kGroup ? left : kTogether * kGroup, together[0][0],
                                [](int8_t x) { return PackedA{x}; });
    for (int64_t panel = 0; panel < panels; ++panel) {
      PackedA* to = layout.a_panel(first + panel) + g * kRows * kGroup;
      for (int64_t i = 0; i < groups; ++i) memcpy(to + i * kRows * kGroup, together[i][panel], sizeof together[i][panel]);
    }
  }
  for (int64_t panel = first; panel < first + panels; ++panel) {
    fill_starts(layout.a_panel(panel), layout, layout.start(panel));
  }
}

inline void pack_b(const klr_matmul& product, const Layout& layout, int64_t panel) {
  if (product.k == 0) return;  // there may be no matrix to point to
  const int64_t line = product.transpose_b ? product.k : 1, next = product.transpose_b ? 1 : product.n;
  const int64_t first = panel * kColumns, left = product.n - first;
  pack_panel<kColumns>(product.b + first * line, line, next, left, product.k, layout.b_panel(panel),
                       [](int8_t x) { return static_cast<PackedB>(x + kShift); });
}

}  // namespace KLR_ISA
}  // namespace klr
