// Loops over entries, compiled once for each instruction set: KLR_ISA names the one that the flags select.
#include <type_traits>

#include "dtypes.h"
#include "dynamic_map.h"
#include "philox.h"
#include "range_expansion.h"
#include "update_formulas.h"
#include "update_table.h"

namespace klr {
namespace KLR_ISA {
namespace {

// Partial sums side by side: the order of additions is the same on all machines. GCC would unroll a loop over 16 of them, and
// then shuffle entries to make vectors of something else, at half the speed.
constexpr int64_t kLane = 64;
constexpr int64_t kBlock = kEntries;  // of one call of `random_bits`
constexpr int64_t kRun = 4096;        // entries summed in float32 before they go into a float64
constexpr int64_t kCodeRun = 1024;    // entries that are float32 at a time, at least

template <class Method, class W, class G>
void update_entries(W* __restrict w, const G* __restrict g, float* __restrict s0, float* __restrict s1, int64_t n,
                    const Method method) {
  for (int64_t i = 0; i < n; ++i) {
    float m = s0[i], v = Method::slots > 1 ? s1[i] : 0;
    store(w[i], method(load(w[i]), load(g[i]), m, v));
    if (!(has_sum<Method>::value && Method::slots > 1)) {  // else `sum` has set them
      s0[i] = m;
      if (Method::slots > 1) s1[i] = v;
    }
  }
}

// `first` is the place of the first entry in the tensor, a multiple of kBlock.
template <class Method, class G>
void update_rounding(bfloat16* __restrict w, const G* __restrict g, float* __restrict s0, float* __restrict s1, int64_t first,
                     int64_t n, const Method method, uint32_t tensor, const uint32_t seed[2]) {
  uint16_t random[kBlock];
  for (int64_t block = 0; block < n; block += kBlock) {
    random_bits(static_cast<uint32_t>((first + block) / kBlock), tensor, seed, random);
    const int64_t end = n - block < kBlock ? n - block : kBlock;
    for (int64_t j = 0; j < end; ++j) {
      const int64_t i = block + j;
      float m = s0[i], v = Method::slots > 1 ? s1[i] : 0;
      store(w[i], method(load(w[i]), load(g[i]), m, v), random[j]);
      s0[i] = m;
      if (Method::slots > 1) s1[i] = v;
    }
  }
}

template <class Method, class W, class G>
void sum_entries(const W* __restrict w, const G* __restrict g, float* __restrict s0, float* __restrict s1, int64_t n,
                 const Method method, float sums[2]) {
  float a[kLane] = {}, b[kLane] = {};
  auto add = [&](int64_t i, int64_t lane) {
    float m = s0[i], v = Method::slots > 1 ? s1[i] : 0, x, y;
    method.sum(load(w[i]), load(g[i]), m, v, x, y);
    if (Method::slots > 1) s0[i] = m, s1[i] = v;
    a[lane] += x * x;
    b[lane] += y * y;
  };
  int64_t i = 0;
  for (; i + kLane <= n; i += kLane) {
    for (int64_t lane = 0; lane < kLane; ++lane) add(i + lane, lane);
  }
  for (int64_t lane = 0; i < n; ++i, ++lane) add(i, lane);
  sums[0] = sums[1] = 0;
  for (int64_t lane = 0; lane < kLane; ++lane) sums[0] += a[lane], sums[1] += b[lane];
}

float* at(float* slot, int64_t begin) { return slot == nullptr ? nullptr : slot + begin; }

template <class Method, class W, class G>
void update_run(const klr_tensor& tensor, const klr_settings& settings, const Method& method, int64_t begin, int64_t n,
                float* s0, float* s1) {
  W* w = static_cast<W*>(tensor.w) + begin;
  const G* g = static_cast<const G*>(tensor.g) + begin;
  if constexpr (std::is_same<W, bfloat16>::value) {
    if (settings.stochastic_rounding) {
      update_rounding(w, g, s0, s1, begin, n, method, tensor.index, settings.seed);
      return;
    }
  }
  update_entries(w, g, s0, s1, n, method);
}

template <class T>
T* part(const klr_tensor& tensor, int slot, int number, int64_t at) {
  return static_cast<T*>(tensor.parts[slot][number]) + at;
}

Groups groups_at(const klr_tensor& tensor, int slot, int64_t begin) {
  const int64_t first = begin / tensor.code_block;
  return {tensor.code_block, part<uint8_t>(tensor, slot, 0, begin), part<bfloat16>(tensor, slot, 1, first),
          part<bfloat16>(tensor, slot, 2, first), part<uint8_t>(tensor, slot, 3, first)};
}

// Calls f(codes, scale, entries, state) for every block of n entries.
template <class F>
void each_block(const klr_tensor& tensor, int slot, int64_t begin, int64_t n, float* state, F f) {
  uint8_t* codes = part<uint8_t>(tensor, slot, 0, begin);
  float* absmax = part<float>(tensor, slot, 1, begin / tensor.code_block);
  for (int64_t i = 0; i < n; i += tensor.code_block) {
    f(codes + i, absmax++, n - i < tensor.code_block ? n - i : tensor.code_block, state + i);
  }
}

void decode_state(const klr_tensor& tensor, int slot, int64_t begin, int64_t n, float* state) {
  if (tensor.code == KLR_COAT) {
    decode(groups_at(tensor, slot, begin), n, state);
    return;
  }
  const DynamicMap& map = dynamic_map(slot == 0);
  each_block(tensor, slot, begin, n, state,
             [&](uint8_t* codes, float* absmax, int64_t count, float* x) { decode(map, codes, *absmax, count, x); });
}

void encode_state(const klr_tensor& tensor, int slot, int64_t begin, int64_t n, float* state) {
  if (tensor.code == KLR_COAT) {
    encode(state, n, groups_at(tensor, slot, begin));
    return;
  }
  const DynamicMap& map = dynamic_map(slot == 0);
  each_block(tensor, slot, begin, n, state, [&](uint8_t* codes, float* absmax, int64_t count, float* x) {
    *absmax = encode(map, slot == 0, x, count, codes);
  });
}

// A few blocks after the other: their state is float32 for as long as it takes to update it.
template <class Method, class W, class G>
void update_coded(const klr_tensor& tensor, const klr_settings& settings, const Method& method, int64_t begin, int64_t end) {
  float state[Method::slots][KLR_LARGEST_CODE_BLOCK];
  const int64_t run = tensor.code_block > kCodeRun ? tensor.code_block : kCodeRun;
  for (int64_t i = begin; i < end; i += run) {
    const int64_t n = end - i < run ? end - i : run;
    for (int slot = 0; slot < Method::slots; ++slot) decode_state(tensor, slot, i, n, state[slot]);
    update_run<Method, W, G>(tensor, settings, method, i, n, state[0], state[Method::slots - 1]);
    for (int slot = 0; slot < Method::slots; ++slot) encode_state(tensor, slot, i, n, state[slot]);
  }
}

template <class Method, class W, class G>
void update(const klr_tensor& tensor, const klr_settings& settings, const double* totals, int64_t begin, int64_t end) {
  const Method method(tensor, settings.parameters, totals);
  if constexpr (!has_sum<Method>::value) {
    if (tensor.code != KLR_NO_CODE) {
      update_coded<Method, W, G>(tensor, settings, method, begin, end);
      return;
    }
  }
  update_run<Method, W, G>(tensor, settings, method, begin, end - begin, at(tensor.slots[0], begin),
                           at(tensor.slots[1], begin));
}

template <class Method, class W, class G>
void sum(const klr_tensor& tensor, const klr_settings& settings, int64_t begin, int64_t end, double totals[2]) {
  totals[0] = totals[1] = 0;
  if constexpr (has_sum<Method>::value) {
    const Method method(tensor, settings.parameters, nullptr);
    for (int64_t i = begin; i < end; i += kRun) {
      float sums[2];
      sum_entries(static_cast<const W*>(tensor.w) + i, static_cast<const G*>(tensor.g) + i, at(tensor.slots[0], i),
                  at(tensor.slots[1], i), end - i < kRun ? end - i : kRun, method, sums);
      totals[0] += sums[0];
      totals[1] += sums[1];
    }
  }
}

// The second moments of `count` entries from `begin` on, each that of its block.
void spread(const klr_tensor& tensor, int64_t begin, int64_t count, float* v) {
  for (int64_t i = begin, end = begin + count; i < end;) {
    const int64_t block = i / tensor.inner % tensor.blocks;
    const int64_t left = tensor.inner == 1 ? tensor.blocks - block : tensor.inner - i % tensor.inner;
    const int64_t run = left < end - i ? left : end - i;
    for (int64_t j = 0; j < run; ++j) *v++ = tensor.slots[1][tensor.inner == 1 ? block + j : block];
    i += run;
  }
}

template <class W, class G>
void update_mini(const klr_tensor& tensor, const klr_settings& settings, const double*, int64_t begin, int64_t end) {
  const AdamMini method(tensor, settings.parameters, nullptr);
  float v[kRun];
  for (int64_t i = begin; i < end; i += kRun) {
    const int64_t count = end - i < kRun ? end - i : kRun;
    W* w = static_cast<W*>(tensor.w) + i;
    const G* g = static_cast<const G*>(tensor.g) + i;
    spread(tensor, i, count, v);
    if constexpr (std::is_same<W, bfloat16>::value) {
      if (settings.stochastic_rounding) {
        update_rounding(w, g, tensor.slots[0] + i, v, i, count, method, tensor.index, settings.seed);
        continue;
      }
    }
    update_entries(w, g, tensor.slots[0] + i, v, count, method);
  }
}

// The sum of squares of n neighbors.
template <class G>
double squares(const G* __restrict g, int64_t n, float scale) {
  double total = 0;
  for (int64_t i = 0; i < n;) {
    float lanes[kLane] = {};
    const int64_t end = n - i < kRun ? n : i + kRun;
    for (; i + kLane <= end; i += kLane) {
      for (int64_t lane = 0; lane < kLane; ++lane) {
        const float x = scale * load(g[i + lane]);
        lanes[lane] += x * x;
      }
    }
    for (int64_t lane = 0; i < end; ++i, ++lane) lanes[lane] += scale * load(g[i]) * (scale * load(g[i]));
    for (int64_t lane = 0; lane < kLane; ++lane) total += lanes[lane];
  }
  return total;
}

// Blocks begin ... end - 1: the mean of their squared gradients goes into their second moments.
template <class W, class G>
void sum_mini(const klr_tensor& tensor, const klr_settings& settings, int64_t begin, int64_t end, double totals[2]) {
  totals[0] = totals[1] = 0;
  if (begin == end) return;
  constexpr int64_t kGroup = 64;
  const AdamMini method(tensor, settings.parameters, nullptr);
  const G* g = static_cast<const G*>(tensor.g);
  const int64_t outer = tensor.size / (tensor.blocks * tensor.inner), stride = tensor.blocks * tensor.inner;
  for (int64_t first = begin; first < end; first += kGroup) {
    const int64_t count = end - first < kGroup ? end - first : kGroup;
    double sums[kGroup] = {};
    for (int64_t row = 0; row < outer; ++row) {
      const G* from = g + row * stride + first * tensor.inner;
      for (int64_t b = 0; b < count; ++b) {
        if (tensor.inner > 1) {
          sums[b] += squares(from + b * tensor.inner, tensor.inner, method.p.gradient_scale);
        } else {
          const float x = method.p.gradient_scale * load(from[b]);
          sums[b] += x * x;
        }
      }
    }
    for (int64_t b = 0; b < count; ++b) {
      float& v = tensor.slots[1][first + b];
      v = method.p.beta_2 * v + method.p.one_minus_beta_2 * static_cast<float>(sums[b] / (outer * tensor.inner));
    }
  }
}

template <class Method>
constexpr Row row() {
  return {Method::slots,
          has_sum<Method>::value,
          Method::in_blocks,
          {{update<Method, float, float>, update<Method, float, bfloat16>},
           {update<Method, bfloat16, float>, update<Method, bfloat16, bfloat16>}},
          {{sum<Method, float, float>, sum<Method, float, bfloat16>},
           {sum<Method, bfloat16, float>, sum<Method, bfloat16, bfloat16>}}};
}

template <>
constexpr Row row<AdamMini>() {
  return {AdamMini::slots,
          /*has_sums=*/true,
          AdamMini::in_blocks,
          {{update_mini<float, float>, update_mini<float, bfloat16>},
           {update_mini<bfloat16, float>, update_mini<bfloat16, bfloat16>}},
          {{sum_mini<float, float>, sum_mini<float, bfloat16>}, {sum_mini<bfloat16, float>, sum_mini<bfloat16, bfloat16>}}};
}

#define KLR_ROW(ID, Struct, ...) row<Struct>(),

}  // namespace

extern const Row table[KLR_METHODS] = {KLR_UPDATE_RULES(KLR_ROW)};

}  // namespace KLR_ISA
}  // namespace klr
