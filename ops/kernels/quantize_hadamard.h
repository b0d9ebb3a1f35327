// Hadamard transforms of groups of a row, with the sums in the order of keras_lrsched/precision/_hadamard.py.
#pragma once

#include "quantize_elements.h"

namespace klr {
namespace KLR_ISA {

constexpr int64_t kBatch = 512;          // entries that go through a stage before the next, so that no sum waits for another
constexpr float kNegligible = 0x1p-98f;  // without numbers below it, all sums, and their results, are 0 or at least 2^-126

KLR_INLINE float signed_number(float x, float sign) { return ((bits_of(x) & ~kSign) < bits_of(kNegligible) ? 0 : x) * sign; }

// A NaN becomes one without sign, which else would depend on the order of operands.
KLR_INLINE float scaled_sum(float x, float scale) {
  const float product = x * scale;
  return product != product ? __builtin_nanf("") : product;
}

// 1 / sqrt(size)
inline float scale_of_transform(int size) { return size == 16 ? 0.25f : size == 32 ? 0x1.6a09e6p-3f : 0x1.6a09e6p-4f; }

template <int N>
void take_signs(const float* __restrict x, const float* __restrict signs, int64_t n, float* __restrict y) {
  for (int64_t g = 0; g < n; g += N) {
    for (int i = 0; i < N; ++i) y[g + i] = signed_number(x[g + i], signs[i]);
  }
}

// Of groups of 16, sums of neighbors go to the first half and differences to the second: after four times all are in order.
inline void add_neighbors(const float* __restrict x, int64_t n, float* __restrict y) {
  for (int64_t g = 0; g < n; g += 16) {
    for (int i = 0; i < 8; ++i) {
      y[g + i] = x[g + 2 * i] + x[g + 2 * i + 1];
      y[g + i + 8] = x[g + 2 * i] - x[g + 2 * i + 1];
    }
  }
}

template <int kStep>
void add_far(int64_t n, float* __restrict x) {
  for (int64_t g = 0; g < n; g += 2 * kStep) {
    for (int i = 0; i < kStep; ++i) {
      const float left = x[g + i], right = x[g + i + kStep];
      x[g + i] = left + right, x[g + i + kStep] = left - right;
    }
  }
}

inline void scale_sums(const float* __restrict x, float scale, int64_t n, float* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = scaled_sum(x[i], scale);
}

template <int N>
void transform_groups(const float* signs, int64_t n, float* x) {
  float a[kBatch], b[kBatch];
  for (int64_t begin = 0; begin < n; begin += kBatch) {
    const int64_t size = n - begin < kBatch ? n - begin : kBatch;
    take_signs<N>(x + begin, signs, size, a);
    add_neighbors(a, size, b), add_neighbors(b, size, a);
    add_neighbors(a, size, b), add_neighbors(b, size, a);
    if (N >= 32) add_far<16>(size, a);
    if (N >= 128) add_far<32>(size, a), add_far<64>(size, a);
    scale_sums(a, scale_of_transform(N), size, x + begin);
  }
}

// In place, of n entries: whole groups of `size`.
inline void transform(int size, const float* signs, int64_t n, float* x) {
  switch (size) {
    case 16:
      return transform_groups<16>(signs, n, x);
    case 32:
      return transform_groups<32>(signs, n, x);
    default:
      return transform_groups<128>(signs, n, x);
  }
}

// In place, of groups of `size` lines of n entries each, which are `stride` apart.
inline void transform_lines(int size, const float* signs, int64_t lines, int64_t n, float* x, int64_t stride) {
  for (int64_t k = 0; k < lines; ++k) {
    float* line = x + k * stride;
    for (int64_t i = 0; i < n; ++i) line[i] = signed_number(line[i], signs[k % size]);
  }
  for (int step = 1; step < size; step *= 2) {
    for (int64_t k = 0; k < lines; ++k) {
      if (k & step) continue;
      float* __restrict left = x + k * stride, * __restrict right = left + step * stride;
      for (int64_t i = 0; i < n; ++i) {
        const float a = left[i], b = right[i];
        left[i] = a + b, right[i] = a - b;
      }
    }
  }
  for (int64_t k = 0; k < lines; ++k) {
    float* line = x + k * stride;
    for (int64_t i = 0; i < n; ++i) line[i] = scaled_sum(line[i], scale_of_transform(size));
  }
}

}  // namespace KLR_ISA
}  // namespace klr
