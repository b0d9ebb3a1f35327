// The C interface: which instruction set, which chunk of which tensor.
#include "update.h"

#include <string.h>

#include "table.h"

namespace {

const char* const kNames[KL_METHODS] = {"sgd", "lion", "adamw", "lars", "lamb"};

struct InstructionSet {
  const char* name;
  const kl::Row* table;
};

InstructionSet choose() {
#ifdef KL_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return {"avx512", kl::avx512::table};
  }
  if (__builtin_cpu_supports("avx2")) return {"avx2", kl::avx2::table};
#endif
  return {"baseline", kl::baseline::table};
}

const InstructionSet& in_use() {
  static const InstructionSet chosen = choose();
  return chosen;
}

// Calls f(tensor, its number, begin, end, chunk) for every chunk begin ... end - 1.
template <class F>
void each_chunk(const kl_tensor* tensors, int64_t n, const int64_t* first_chunks, int64_t begin, int64_t end, F f) {
  int64_t low = 0, high = n;  // the last tensor whose first chunk is not after `begin`
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (first_chunks[middle] <= begin ? low : high) = middle;
  }
  for (int64_t t = low, chunk = begin; chunk < end; ++chunk) {
    while (chunk >= first_chunks[t + 1]) ++t;
    const int64_t first = (chunk - first_chunks[t]) * KL_CHUNK;
    const int64_t last = first + KL_CHUNK < tensors[t].size ? first + KL_CHUNK : tensors[t].size;
    f(tensors[t], t, first, last, chunk);
  }
}

}  // namespace

int kl_find_method(const char* name) {
  for (int method = 0; method < KL_METHODS; ++method) {
    if (!strcmp(name, kNames[method])) return method;
  }
  return -1;
}

int kl_slots(int method) { return in_use().table[method].slots; }

int kl_has_sums(int method) { return in_use().table[method].has_sums; }

const char* kl_instruction_set(void) { return in_use().name; }

void kl_plan(const kl_tensor* tensors, int64_t n, int64_t* first_chunks) {
  first_chunks[0] = 0;
  for (int64_t t = 0; t < n; ++t) first_chunks[t + 1] = first_chunks[t] + (tensors[t].size + KL_CHUNK - 1) / KL_CHUNK;
}

void kl_sum(int method, const kl_tensor* tensors, int64_t n, const int64_t* first_chunks, const kl_settings* settings,
            int64_t begin, int64_t end, double* sums) {
  const kl::Row& row = in_use().table[method];
  each_chunk(tensors, n, first_chunks, begin, end,
             [&](const kl_tensor& tensor, int64_t, int64_t first, int64_t last, int64_t chunk) {
               row.sum[tensor.w_dtype][tensor.g_dtype](tensor, *settings, first, last, sums + 2 * chunk);
             });
}

void kl_reduce(int64_t n, const int64_t* first_chunks, const double* sums, double* totals) {
  for (int64_t t = 0; t < n; ++t) {
    totals[2 * t] = totals[2 * t + 1] = 0;
    for (int64_t chunk = first_chunks[t]; chunk < first_chunks[t + 1]; ++chunk) {
      totals[2 * t] += sums[2 * chunk];
      totals[2 * t + 1] += sums[2 * chunk + 1];
    }
  }
}

void kl_update(int method, const kl_tensor* tensors, int64_t n, const int64_t* first_chunks, const kl_settings* settings,
               int64_t begin, int64_t end, const double* totals) {
  const kl::Row& row = in_use().table[method];
  each_chunk(tensors, n, first_chunks, begin, end,
             [&](const kl_tensor& tensor, int64_t t, int64_t first, int64_t last, int64_t) {
               const double* own = totals == nullptr ? nullptr : totals + 2 * t;
               row.update[tensor.w_dtype][tensor.g_dtype](tensor, *settings, own, first, last);
             });
}
