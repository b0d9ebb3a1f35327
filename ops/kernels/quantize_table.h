// What each instruction set offers: a row an element type. And how a tensor is cut into pieces.
#pragma once

#include "host_device.h"
#include "quantize.h"

namespace klr {

// Rows that are read together where neighbors along the axis are not neighbors in memory, unless a block has more.
constexpr int64_t kTile = 64;
constexpr int64_t kScales = 4096;  // of a piece at most

// A row of pieces goes along `columns`; a piece is `height` rows and `width` columns, or less at the borders.
struct Cut {
  bool whole;   // one block for the tensor
  bool by_row;  // one block a row, cut into pieces that belong together
  int64_t others, rows, columns, inner;
  int64_t block_rows, block_columns;
  int64_t height, width;
  int64_t strips, segments;  // of each of `others`: rows of pieces, and pieces (that do not belong together) a row
};

struct Quantizing {
  const klr_quantizer& quantizer;
  const Cut& cut;
  const float* tensor;
};

struct Elements {
  uint32_t (*amax)(const Quantizing&, const void* x, int64_t begin, int64_t end);
  void (*fit)(int rule, uint32_t amax, float tensor[2]);
  void (*quantize)(const Quantizing&, const void* x, int64_t begin, int64_t end, uint8_t* codes, void* scales);
  void (*fake)(const Quantizing&, const void* x, int64_t begin, int64_t end, void* y);
  void (*dequantize)(const Quantizing&, const uint8_t* codes, const void* scales, int64_t begin, int64_t end, void* y);
};

namespace baseline {
extern const Elements quantizers[KLR_ELEMENTS];
}
#ifdef KLR_X86
namespace avx2 {
extern const Elements quantizers[KLR_ELEMENTS];
}
namespace avx512 {
extern const Elements quantizers[KLR_ELEMENTS];
}
#endif

KLR_BOTH inline bool has_e8m0(int rule) { return rule <= KLR_EVEN; }
KLR_BOTH inline bool has_float32(int rule) { return rule == KLR_EXACT || rule == KLR_POWER_OF_TWO; }
KLR_BOTH inline bool is_nvfp4(int rule) { return rule == KLR_SIX || rule == KLR_FOUR_OVER_SIX; }

// How many bits an element has, and how many of them fill whole bytes.
KLR_BOTH inline int bits_of_element(int element) {
#define KLR_CASE(ID, bits, ...) \
  case KLR_##ID:                \
    return bits;
  switch (element) {
    KLR_QUANTIZER_ELEMENTS(KLR_CASE)
    default:
      return 8;
  }
#undef KLR_CASE
}
KLR_BOTH inline int group_of(int bits) { return bits == 4 ? 2 : bits == 6 ? 4 : 1; }

// How many rows are cut into blocks on their own.
KLR_BOTH inline int64_t rows_together(const klr_quantizer& q) { return q.rows > 0 ? q.rows : q.inner == 1 ? q.outer : q.inner; }

KLR_BOTH inline int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace klr
