// The C interface of quantization: which instruction set, which pieces of a tensor.
#include <fenv.h>

#include <algorithm>
#include <numeric>

#include "quantize.h"
#include "quantize_table.h"

namespace {

using klr::Cut;
using klr::kTile;
using klr::up_to;

constexpr int64_t kChunk = 32768;  // entries, about
constexpr int64_t kPiece = 1024;   // entries of a row that are a piece, about: the next ones are on their way meanwhile
constexpr int64_t kPieces = 8192;  // entries of a piece of several rows, about

struct InstructionSet {
  const char* name;
  const klr::Elements* quantizers;
};

InstructionSet choose() {
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return {"avx512", klr::avx512::quantizers};
  }
#endif
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX2)
  if (__builtin_cpu_supports("avx2")) return {"avx2", klr::avx2::quantizers};
#endif
  return {"baseline", klr::baseline::quantizers};
}

const InstructionSet& in_use() {
  static const InstructionSet chosen = choose();
  return chosen;
}

// The arithmetic of IEEE 754 as long as it lives: frameworks let their threads flush small numbers to zero.
class Arithmetic {
 public:
  Arithmetic() {
    fegetenv(&saved_);
    fesetenv(FE_DFL_ENV);
  }
  ~Arithmetic() { fesetenv(&saved_); }
  Arithmetic(const Arithmetic&) = delete;
  Arithmetic& operator=(const Arithmetic&) = delete;

 private:
  fenv_t saved_;
};

int64_t group(const klr_quantizer& q) { return klr::group_of(klr::bits_of_element(q.element)); }

// The fewest columns that are whole blocks, and whole groups of a Hadamard transform.
int64_t whole_groups(const klr_quantizer& q, int64_t block_columns) {
  return q.hadamard ? std::lcm(block_columns, static_cast<int64_t>(q.hadamard)) : block_columns;
}

// Whole blocks of rows that are read together.
int64_t tile(int64_t block_rows, int64_t columns) {
  const int64_t rows = std::min(kTile, KLR_LARGEST_BLOCK / columns);
  return std::max(block_rows, rows / block_rows * block_rows);
}

// `in_place`: the result lies as the tensor does, so that one block for all has no rows, unless a transform needs them.
Cut cut(const klr_quantizer& q, bool in_place) {
  Cut c = {};
  const int64_t all_rows = q.outer * q.inner;
  c.whole = q.block_rows == 0 || (q.block_columns == 0 && all_rows == 1);
  c.by_row = !c.whole && q.block_columns == 0;
  c.block_rows = q.block_rows > 1 ? q.block_rows : 1;
  c.block_columns = c.whole || c.by_row ? group(q) : q.block_columns;
  c.columns = q.columns, c.inner = q.inner;
  if (c.block_rows > 1) {
    c.rows = klr::rows_together(q), c.others = all_rows / c.rows;
  } else if ((c.whole && in_place && !(q.hadamard && q.inner > 1)) ||
             (q.inner == 1 && !c.by_row && q.columns % c.block_columns == 0)) {
    c.others = c.rows = c.inner = 1, c.columns = q.columns * all_rows;  // no block ends at the end of a row
  } else if (q.inner == 1) {
    c.others = 1, c.rows = q.outer;
  } else {
    c.others = q.outer, c.rows = q.inner;
  }
  const int64_t step = whole_groups(q, c.block_columns);
  c.height = c.inner == 1 ? c.block_rows : tile(c.block_rows, step);
  const int64_t steps = (c.height == 1 ? kPiece : kPieces) / (c.height * step), most = klr::kScales / c.height;
  c.width = step * std::max<int64_t>(1, std::min(steps, most));
  c.strips = (c.rows + c.height - 1) / c.height;
  c.segments = c.by_row ? 1 : (c.columns + c.width - 1) / c.width;
  return c;
}

int64_t pieces(const Cut& c) { return c.others * c.strips * c.segments; }

int64_t pieces_per_chunk(const Cut& c) {
  const int64_t entries = c.height * (c.by_row || c.columns < c.width ? c.columns : c.width);
  return entries < kChunk ? kChunk / entries : 1;
}

int64_t chunks(const Cut& c) {
  const int64_t per_chunk = pieces_per_chunk(c);
  return (pieces(c) + per_chunk - 1) / per_chunk;
}

// Calls f(first piece, last piece).
template <class F>
void of_chunks(const Cut& c, int64_t begin, int64_t end, F f) {
  const int64_t per_chunk = pieces_per_chunk(c), all = pieces(c);
  f(begin * per_chunk, end * per_chunk < all ? end * per_chunk : all);
}

}  // namespace

int klr_quantize_valid(const klr_quantizer* q) {
  if (q->element < 0 || q->element >= KLR_ELEMENTS || q->rule < 0 || q->rule >= KLR_SCALE_RULES) return 0;
  if (q->outer < 1 || q->columns < 1 || q->inner < 1 || q->block_rows < 0 || q->block_columns < 0) return 0;
  if (klr::is_nvfp4(q->rule) && q->element != KLR_E2M1) return 0;
  if (q->hadamard != 0 && q->hadamard != 16 && q->hadamard != 32 && q->hadamard != 128) return 0;
  if (q->hadamard != 0 && q->columns % q->hadamard != 0) return 0;
  // A block for the tensor has one float32.
  if (q->block_rows == 0) return klr::has_float32(q->rule);
  if (q->block_columns == 0) return klr::has_float32(q->rule) && q->block_rows == 1;
  if (q->block_columns % group(*q) != 0 || q->block_columns > KLR_LARGEST_BLOCK) return 0;
  const int64_t columns = whole_groups(*q, q->block_columns);
  if (q->block_rows == 1) return columns <= KLR_LARGEST_BLOCK;
  if (q->inner > 1 && q->block_rows > klr::kScales) return 0;
  const bool has_rows = q->rows >= 0 && (q->inner == 1 ? q->outer : q->inner) % klr::rows_together(*q) == 0;
  return has_rows && q->block_rows * columns <= KLR_LARGEST_BLOCK;
}

void klr_quantize_stored(const klr_quantizer* q, klr_stored* stored) {
  const bool whole = q->block_rows == 0;
  const int64_t all_rows = q->outer * q->inner, r = q->block_rows > 1 ? q->block_rows : 1;
  const int64_t columns = up_to(q->columns, q->block_columns != 0 && !whole ? q->block_columns : group(*q));
  stored->code_rows = r > 1 ? all_rows / klr::rows_together(*q) * up_to(klr::rows_together(*q), r) : all_rows;
  stored->code_bytes = columns * klr::bits_of_element(q->element) / 8;
  stored->scale_rows = whole ? 1 : stored->code_rows / r;
  stored->scale_columns = whole || q->block_columns == 0 ? 1 : columns / q->block_columns;
  stored->scale_bytes = klr::has_float32(q->rule) ? 4 : 1;
}

const char* klr_quantize_instruction_set(void) { return in_use().name; }

int klr_quantize_phases(const klr_quantizer* q) { return cut(*q, false).whole || klr::is_nvfp4(q->rule) ? 2 : 1; }

// Of the two ways to cut, the larger number: chunks that there are not, are empty.
int64_t klr_quantize_chunks(const klr_quantizer* q) {
  const int64_t a = chunks(cut(*q, false)), b = chunks(cut(*q, true));
  return a > b ? a : b;
}

void klr_quantize_amax(const klr_quantizer* q, const void* x, int64_t begin, int64_t end, uint32_t* amax) {
  const Arithmetic arithmetic;
  const Cut c = cut(*q, true);
  for (int64_t k = begin; k < end; ++k) {
    of_chunks(c, k, k + 1, [&](int64_t first, int64_t last) {
      amax[k] = in_use().quantizers[q->element].amax({*q, c, nullptr}, x, first, last);
    });
  }
}

void klr_quantize_fit(const klr_quantizer* q, const uint32_t* amax, float tensor[2]) {
  const Arithmetic arithmetic;
  uint32_t largest = 0;
  for (int64_t k = 0, n = klr_quantize_chunks(q); k < n; ++k) largest = amax[k] > largest ? amax[k] : largest;
  in_use().quantizers[q->element].fit(q->rule, largest, tensor);
}

void klr_quantize(const klr_quantizer* q, const void* x, const float* tensor, int64_t begin, int64_t end, uint8_t* codes,
                  void* scales) {
  const Arithmetic arithmetic;
  const Cut c = cut(*q, false);
  of_chunks(c, begin, end, [&](int64_t first, int64_t last) {
    in_use().quantizers[q->element].quantize({*q, c, tensor}, x, first, last, codes, scales);
  });
}

void klr_fake_quantize(const klr_quantizer* q, const void* x, const float* tensor, int64_t begin, int64_t end, void* y) {
  const Arithmetic arithmetic;
  const Cut c = cut(*q, true);
  of_chunks(c, begin, end,
            [&](int64_t first, int64_t last) { in_use().quantizers[q->element].fake({*q, c, tensor}, x, first, last, y); });
}

void klr_dequantize(const klr_quantizer* q, const uint8_t* codes, const void* scales, const float* tensor_scale, int64_t begin,
                    int64_t end, void* y) {
  const Arithmetic arithmetic;
  const Cut c = cut(*q, false);
  of_chunks(c, begin, end, [&](int64_t first, int64_t last) {
    in_use().quantizers[q->element].dequantize({*q, c, tensor_scale}, codes, scales, first, last, y);
  });
}
