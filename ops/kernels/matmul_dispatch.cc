// The C interface of products of int8 matrices: what may be asked for, which tiles, which instruction set.
#include "matmul.h"
#include "matmul_table.h"

namespace {

struct InstructionSet {
  const char* name;
  const klr::MatmulTable* table;
  bool (*supported)();
};

#ifdef KLR_X86
[[maybe_unused]] bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni");
}

[[maybe_unused]] bool has_avx2() { return __builtin_cpu_supports("avx2"); }
#endif

const InstructionSet kSets[] = {
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX512VNNI)
    {"avx512vnni", &klr::avx512vnni::matmul_table, has_avx512vnni},
#endif
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX2)
    {"avx2", &klr::avx2::matmul_table, has_avx2},
#endif
    {"baseline", &klr::baseline::matmul_table, [] { return true; }},
};
constexpr int kSetCount = sizeof(kSets) / sizeof(kSets[0]);

bool supported(int number) { return kSets[number].supported(); }

int best() {
  int number = 0;
  while (!supported(number)) ++number;
  return number;
}

const klr::MatmulTable& table(const klr_matmul& product) {
  static const int chosen = best();
  return *kSets[product.instruction_set < 0 ? chosen : product.instruction_set].table;
}

int64_t up(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

const char* klr_matmul_error(const klr_matmul* product) {
  const int64_t m = product->m, n = product->n, k = product->k;
  if (m < 0 || n < 0 || k < 0) return "sizes must not be negative";
  if (product->instruction_set >= kSetCount || (product->instruction_set >= 0 && !supported(product->instruction_set))) {
    return "this machine lacks the instruction set";
  }
  switch (product->output) {
    case KLR_MATMUL_INT32:
    case KLR_MATMUL_SCALED:
      if (k > KLR_MATMUL_MAX_K) return "sums over more than 131071 products could overflow 32 bits";
      if (product->output == KLR_MATMUL_INT32) return nullptr;
      if (product->a_scales_size != 1 && product->a_scales_size != m) return "the first matrix needs one scale, or one a row";
      if (product->b_scales_size != 1 && product->b_scales_size != n) {
        return "the second matrix needs one scale, or one a column";
      }
      return nullptr;
    case KLR_MATMUL_BLOCKS:
      if (product->a_scales_size != up(m, KLR_MATMUL_BLOCK) * up(k, KLR_MATMUL_BLOCK) ||
          product->b_scales_size != up(k, KLR_MATMUL_BLOCK) * up(n, KLR_MATMUL_BLOCK)) {
        return "both matrices need one scale for each block of 32 x 32";
      }
      return nullptr;
    default:
      return "there is no such output";
  }
}

int64_t klr_matmul_scratch(const klr_matmul* product) { return table(*product).scratch(*product); }

int64_t klr_matmul_pieces(const klr_matmul* product) { return table(*product).pieces(*product); }

void klr_matmul_pack(const klr_matmul* product, void* scratch, int64_t begin, int64_t end) {
  table(*product).pack(*product, scratch, begin, end);
}

int64_t klr_matmul_tiles(const klr_matmul* product) {
  return up(product->m, KLR_MATMUL_TILE_ROWS) * up(product->n, KLR_MATMUL_TILE_COLUMNS);
}

void klr_matmul_compute(const klr_matmul* product, const void* scratch, int64_t begin, int64_t end) {
  table(*product).compute(*product, scratch, begin, end);
}

const char* klr_matmul_instruction_set(int number) {
  return number >= 0 && number < kSetCount && supported(number) ? kSets[number].name : nullptr;
}
