// Scales of blocks, from the bits of their largest magnitudes. `In` is how numbers of a piece lie: InRows or InLines.
#pragma once

#include "quantize_strided.h"

namespace klr {
namespace KLR_ISA {

// Whether OrdinaryNumbers do: every magnitude is 0, infinite, or so far from both that no scale is below 2^-126.
inline bool are_ordinary(const uint32_t* __restrict amax, int64_t n) {
  const uint32_t least = bits_of(0x1p-100f), largest = bits_of(0x1p100f);
  uint32_t others = 0;
  for (int64_t b = 0; b < n; ++b) {
    others |= (amax[b] != 0 && amax[b] < least) | (amax[b] > largest && amax[b] < kInfinity);
  }
  return others == 0;
}

template <class E, class Numbers>
void fit_each(int rule, const uint32_t* __restrict amax, int64_t n, Scale* __restrict scales) {
  for (int64_t b = 0; b < n; ++b) scales[b] = fit<E, Numbers>(rule, amax[b]);
}

template <class Numbers>
void fit_each_nvfp4(const uint32_t* __restrict amax, int64_t n, float per_six, float tensor_scale, Scale* __restrict scales) {
  for (int64_t b = 0; b < n; ++b) scales[b] = fit_nvfp4<Numbers>(amax[b], per_six, tensor_scale);
}

// The sums of absolute errors of blocks in NVFP4.
template <class In>
void find_errors(const In& in, const float* x, const Scale* scales, float* sums) {
  float errors[kBuffer];
  in.template divide<false>(x, scales, errors);
  round<E2M1, false>(errors, in.entries, nullptr);
  in.multiply(errors, false, scales, errors);
  for (int64_t i = 0; i < in.entries; ++i) errors[i] = float_of(bits_of(errors[i] - x[i]) & ~kSign);
  in.sum(errors, sums);
}

template <class Numbers, class In>
void fit_nvfp4_blocks(const Quantizing& q, const In& in, const float* x, const uint32_t* amax, Scale* scales) {
  const float per_six = q.tensor[0], tensor_scale = q.tensor[1];
  fit_each_nvfp4<Numbers>(amax, in.scales, per_six, tensor_scale, scales);
  if (q.quantizer.rule != KLR_FOUR_OVER_SIX) return;
  Scale others[kScales];
  float errors[kScales], other_errors[kScales];
  fit_each_nvfp4<Numbers>(amax, in.scales, product(per_six, 1.5f), tensor_scale, others);
  find_errors(in, x, scales, errors);
  find_errors(in, x, others, other_errors);
  for (int64_t b = 0; b < in.scales; ++b) {
    if (amax[b] < kInfinity && other_errors[b] < errors[b]) scales[b] = others[b];
  }
}

// The scales of a piece with the numbers x.
template <class E, class In>
void fit_blocks(const Quantizing& q, const In& in, const float* x, const uint32_t* amax, Scale* scales) {
  const int rule = q.quantizer.rule;
  const bool ordinary = are_ordinary(amax, in.scales);
  if (is_nvfp4(rule)) {
    ordinary&& q.tensor[1] >= kSmallScale ? fit_nvfp4_blocks<OrdinaryNumbers>(q, in, x, amax, scales)
                                          : fit_nvfp4_blocks<AllNumbers>(q, in, x, amax, scales);
  } else {
    ordinary ? fit_each<E, OrdinaryNumbers>(rule, amax, in.scales, scales)
             : fit_each<E, AllNumbers>(rule, amax, in.scales, scales);
  }
}

// The scales of what is stored, from their bits.
template <class Numbers>
void find_scales(int rule, const uint32_t* __restrict raw, int64_t n, float tensor_scale, Scale* __restrict scales) {
  for (int64_t b = 0; b < n; ++b) scales[b] = {0, scale_of<Numbers>(rule, raw[b], tensor_scale), 0};
}

inline void find_scales(int rule, const uint32_t* raw, int64_t n, const float* tensor_scale, Scale* scales) {
  if (!is_nvfp4(rule)) {
    find_scales<OrdinaryNumbers>(rule, raw, n, 1, scales);
  } else if (*tensor_scale >= kSmallScale) {
    find_scales<OrdinaryNumbers>(rule, raw, n, *tensor_scale, scales);
  } else {
    find_scales<AllNumbers>(rule, raw, n, *tensor_scale, scales);
  }
}

}  // namespace KLR_ISA
}  // namespace klr
