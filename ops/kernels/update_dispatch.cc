// The C interface: which instruction set, which chunk of which tensor.
#include <string.h>

#include "update.h"
#include "update_table.h"

namespace {

#define KLR_NAME(ID, Struct, name, ...) #name,
const char* const kNames[KLR_METHODS] = {KLR_UPDATE_RULES(KLR_NAME)};
#undef KLR_NAME

#define KLR_PARAMETERS(ID, Struct, name, in_codes, ...) "gradient_scale, " #__VA_ARGS__,
const char* const kParameters[KLR_METHODS] = {KLR_UPDATE_RULES(KLR_PARAMETERS)};
#undef KLR_PARAMETERS

#define KLR_IN_CODES(ID, Struct, name, in_codes, ...) in_codes,
const bool kInCodes[KLR_METHODS] = {KLR_UPDATE_RULES(KLR_IN_CODES)};
#undef KLR_IN_CODES

struct InstructionSet {
  const char* name;
  const klr::Row* table;
};

InstructionSet choose() {
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return {"avx512", klr::avx512::table};
  }
#endif
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX2)
  if (__builtin_cpu_supports("avx2")) return {"avx2", klr::avx2::table};
#endif
  return {"baseline", klr::baseline::table};
}

const InstructionSet& in_use() {
  static const InstructionSet chosen = choose();
  return chosen;
}

// How a tensor is cut: into pieces of so many units, the last one smaller.
struct Cut {
  int64_t units, per_piece;
};

Cut into_chunks(const klr_tensor& tensor) { return {tensor.size, KLR_CHUNK}; }

// Blocks of about a chunk together; of columns as many as lie in a line of the cache.
Cut into_blocks(const klr_tensor& tensor) {
  if (tensor.size == 0) return {0, 1};
  const int64_t least = tensor.inner == 1 ? 64 : 1, fitting = KLR_CHUNK / (tensor.size / tensor.blocks);
  return {tensor.blocks, fitting > least ? fitting : least};
}

using Cutter = Cut (*)(const klr_tensor&);

Cutter first_phase(int method) { return klr_in_blocks(method) ? into_blocks : into_chunks; }

void plan(const klr_tensor* tensors, int64_t n, Cutter cut, int64_t* first) {
  first[0] = 0;
  for (int64_t t = 0; t < n; ++t) {
    const Cut of = cut(tensors[t]);
    first[t + 1] = first[t] + (of.units + of.per_piece - 1) / of.per_piece;
  }
}

// Calls f(tensor, its number, first unit, last unit, piece) for every piece begin ... end - 1.
template <class F>
void each_piece(const klr_tensor* tensors, int64_t n, const int64_t* first_pieces, Cutter cut, int64_t begin, int64_t end,
                F f) {
  int64_t low = 0, high = n;  // the last tensor whose first piece is not after `begin`
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (first_pieces[middle] <= begin ? low : high) = middle;
  }
  for (int64_t t = low, piece = begin; piece < end; ++piece) {
    while (piece >= first_pieces[t + 1]) ++t;
    const Cut of = cut(tensors[t]);
    const int64_t first = (piece - first_pieces[t]) * of.per_piece;
    const int64_t last = first + of.per_piece < of.units ? first + of.per_piece : of.units;
    f(tensors[t], t, first, last, piece);
  }
}

}  // namespace

int klr_find_method(const char* name) {
  for (int method = 0; method < KLR_METHODS; ++method) {
    if (!strcmp(name, kNames[method])) return method;
  }
  return -1;
}

const char* klr_method_name(int method) { return kNames[method]; }

const char* klr_parameter_names(int method) { return kParameters[method]; }

int klr_parameter_count(int method) {
  int count = 1;
  for (const char* c = kParameters[method]; *c; ++c) count += *c == ',';
  return count;
}

int klr_slots(int method) { return in_use().table[method].slots; }

int klr_has_sums(int method) { return in_use().table[method].has_sums; }

int klr_in_blocks(int method) { return method >= 0 && in_use().table[method].in_blocks; }

int klr_takes_code(int method, int64_t code, int64_t code_block) {
  const bool is_known = kInCodes[method] && code > KLR_NO_CODE && code < KLR_CODES;
  return is_known && code_block >= 128 && code_block <= KLR_LARGEST_CODE_BLOCK && (code_block & (code_block - 1)) == 0;
}

int klr_parts(int64_t code) { return code == KLR_COAT ? 4 : code == KLR_BLOCKWISE8 ? 2 : 1; }

int klr_part_dtype(int64_t code, int part) {
  if (code == KLR_COAT) return part == 0 || part == 3 ? KLR_UINT8 : KLR_BFLOAT16;
  return code == KLR_BLOCKWISE8 && part == 0 ? KLR_UINT8 : KLR_FLOAT32;
}

const char* klr_instruction_set(void) { return in_use().name; }

int klr_valid_blocks(const klr_tensor* tensor) {
  if (tensor->size == 0) return 1;
  if (tensor->blocks < 1 || tensor->inner < 1) return 0;
  return tensor->size % tensor->blocks == 0 && tensor->size / tensor->blocks % tensor->inner == 0;
}

void klr_plan(const klr_tensor* tensors, int64_t n, int64_t* first_chunks) { plan(tensors, n, into_chunks, first_chunks); }

void klr_plan_sums(int method, const klr_tensor* tensors, int64_t n, int64_t* first_pieces) {
  plan(tensors, n, first_phase(method), first_pieces);
}

void klr_sum(int method, const klr_tensor* tensors, int64_t n, const int64_t* first_pieces, const klr_settings* settings,
             int64_t begin, int64_t end, double* sums) {
  const klr::Row& row = in_use().table[method];
  each_piece(tensors, n, first_pieces, first_phase(method), begin, end,
             [&](const klr_tensor& tensor, int64_t, int64_t first, int64_t last, int64_t piece) {
               row.sum[tensor.w_dtype][tensor.g_dtype](tensor, *settings, first, last, sums + 2 * piece);
             });
}

void klr_reduce(int64_t n, const int64_t* first_pieces, const double* sums, double* totals) {
  for (int64_t t = 0; t < n; ++t) {
    totals[2 * t] = totals[2 * t + 1] = 0;
    for (int64_t piece = first_pieces[t]; piece < first_pieces[t + 1]; ++piece) {
      totals[2 * t] += sums[2 * piece];
      totals[2 * t + 1] += sums[2 * piece + 1];
    }
  }
}

void klr_update(int method, const klr_tensor* tensors, int64_t n, const int64_t* first_chunks, const klr_settings* settings,
                int64_t begin, int64_t end, const double* totals) {
  const klr::Row& row = in_use().table[method];
  each_piece(tensors, n, first_chunks, into_chunks, begin, end,
             [&](const klr_tensor& tensor, int64_t t, int64_t first, int64_t last, int64_t) {
               const double* own = totals == nullptr ? nullptr : totals + 2 * t;
               row.update[tensor.w_dtype][tensor.g_dtype](tensor, *settings, own, first, last);
             });
}
