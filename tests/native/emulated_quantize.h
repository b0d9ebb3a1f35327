// The kernels of custom_ops_cuda/quantize.cu on the host: the same bodies, with teams of threads of the host.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "../../custom_ops_cuda/quantize_blocks.h"

namespace emulated {

using namespace klr::KLR_ISA;  // NOLINT: the bodies

struct Team {
  int lane, size;
  float* errors;
  uint32_t* shared;
  pthread_barrier_t* barrier;

  void sync() {
    if (size > 1) pthread_barrier_wait(barrier);
  }
  uint32_t largest(uint32_t own) {
    shared[lane] = own;
    sync();
    own = *std::max_element(shared, shared + size);
    sync();
    return own;
  }
};

// Calls f(block, team) on all threads of a team, for all blocks and one behind.
template <class F>
void each_block(const Plan& p, int size, F f) {
  std::vector<float> errors(p.rule == KLR_FOUR_OVER_SIX ? p.block_rows * p.block_columns : 0);
  std::vector<uint32_t> shared(size);
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, size);
  const auto work = [&](int lane) {
    Team team = {lane, size, errors.data(), shared.data(), &barrier};
    for (int64_t block = 0; block <= p.blocks; ++block) f(block, team);
  };
  std::vector<std::thread> others;
  for (int lane = 1; lane < size; ++lane) others.emplace_back(work, lane);
  work(0);
  for (std::thread& other : others) other.join();
  pthread_barrier_destroy(&barrier);
}

template <class T>
void find_amax(const klr_quantizer& q, const T* x, int size, std::vector<uint32_t>* amax) {
  Plan p = plan_of(q, true);
  set_alignment(&p, sizeof(T), x, x, nullptr);
  amax->assign(p.source == kOfRow ? p.rows : 1, 0);
  each_block(p, size, [&](int64_t block, Team& team) {
    const uint32_t largest = amax_of_block(p, x, block, team);
    if (team.lane != 0 || block == p.blocks || (p.source == kOwn && largest >= kInfinity)) return;
    uint32_t& to = (*amax)[p.source == kOfRow ? place_of(p, block).scale : 0];
    to = std::max(to, largest);
  });
}

// Calls f(element, numbers, what blocks share).
template <class E, class T, class F>
void with_types(const klr_quantizer& q, const void* x, int size, F f) {
  const T* from = static_cast<const T*>(x);
  std::vector<uint32_t> amax;
  float tensor[2] = {1, 1};
  if (plan_of(q, true).source != kOwn || klr::is_nvfp4(q.rule)) find_amax(q, from, size, &amax);
  if (klr::is_nvfp4(q.rule)) fit_nvfp4_tensor(q.rule, amax[0], tensor);
  f(E(), from, Shared{q.seed, amax.data(), tensor});
}

template <class E, class F>
void with_element(const klr_quantizer& q, const void* x, int size, F f) {
  q.dtype == KLR_X_FLOAT32 ? with_types<E, float>(q, x, size, f) : with_types<E, bfloat16>(q, x, size, f);
}

template <class F>
void with_types(const klr_quantizer& q, const void* x, int size, F f) {
#define KLR_CASE(ID, ...) \
  if (q.element == KLR_##ID) with_element<ID>(q, x, size, f);
  KLR_QUANTIZER_ELEMENTS(KLR_CASE)
#undef KLR_CASE
}

inline void quantize(const klr_quantizer& q, const void* x, int size, uint8_t* codes, void* scales, float* tensor_scale) {
  with_types(q, x, size, [&](auto element, auto* from, const Shared& shared) {
    Plan p = plan_of(q, false);
    set_alignment(&p, sizeof(*from), x, x, codes);
    each_block(p, size, [&](int64_t block, Team& team) {
      quantize_block<decltype(element)>(p, from, shared, block, team, codes, scales);
    });
    *tensor_scale = klr::is_nvfp4(q.rule) ? shared.tensor[1] : 1;
  });
}

inline void fake_quantize(const klr_quantizer& q, const void* x, int size, void* y) {
  with_types(q, x, size, [&](auto element, auto* from, const Shared& shared) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    Plan p = plan_of(q, true);
    set_alignment(&p, sizeof(*from), x, y, nullptr);
    each_block(p, size, [&](int64_t block, Team& team) {
      fake_quantize_block<decltype(element)>(p, from, shared, block, team, static_cast<T*>(y));
    });
  });
}

inline void dequantize(const klr_quantizer& q, const uint8_t* codes, const void* scales, const float* tensor_scale, int size,
                       void* y) {
  klr_quantizer one = q;  // of the element alone
  one.rule = KLR_EXACT, one.block_rows = 1, one.block_columns = 0, one.outer = one.columns = one.inner = 1;
  const float none = 0;
  with_types(one, &none, 1, [&](auto element, auto*, const Shared&) {
    Plan p = plan_of(q, false);
    set_alignment(&p, 4, y, y, codes);
    each_block(p, size, [&](int64_t block, Team& team) {
      dequantize_block<decltype(element)>(p, codes, scales, tensor_scale, block, team, static_cast<float*>(y));
    });
  });
}

}  // namespace emulated
