// Moments in FP8 E4M3 after dynamic range expansion, see keras_lrsched/precision/range_expansion.py. Logarithms and powers are
// polynomials, which vectorize, and round alike with any instruction set; those of libraries differ in their last bits.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dtypes.h"
#include "update.h"

namespace klr {
namespace KLR_ISA {

constexpr int kMostGroups = 32;                                              // in one call
constexpr uint32_t kLeastNormal = 1u << 23, kNotFinite = 0x7f800000;         // the bits of sizes
constexpr float kLargestE4M3 = 448, kOctavesE4M3 = 16.614710f, kSteps = 16;  // log2(448^2 / 2)

// log2(x) of a normal number, e + log2(m) with sqrt(1/2) <= m < sqrt(2), to 3e-7: the best odd polynomial in (m - 1) / (m + 1).
inline float log2_of(float x) {
  constexpr uint32_t kRoot = 0x3f3504f3;
  const uint32_t bits = bits_of(x) - kRoot;
  const float m = float_of((bits & 0x7fffff) + kRoot), s = (m - 1) / (m + 1), z = s * s;
  const float series = s * (2.88539052f + z * (0.961587846f + z * 0.595796525f));
  return static_cast<float>(static_cast<int32_t>(bits) >> 23) + series;
}

// 2^x for |x| <= 127, to 2e-7 of it: the best polynomial on [-1/2, 1/2] that is 1 at 0.
inline float exp2_of(float x) {
  const float shifted = x + 0x1.8p23f, f = x - (shifted - 0x1.8p23f);  // the nearest integer is in its last bits
  const float series =
      1 + f * (0.693147004f + f * (0.240222424f + f * (0.0555073358f + f * (0.00967151299f + f * 0.00132647273f))));
  return series * float_of((bits_of(shifted) + 127) << 23);
}

// The code next to x >= 0, at most that of the largest number. A tie goes up: no power is more exact than that.
inline uint32_t e4m3_of(float x) {
  const uint32_t normal = ((bits_of(x) + 0x80000) >> 20) - (120 << 3);
  const uint32_t code = x < 0x1p-6f ? bits_of(x + 0x1p14f) & 15 : normal;
  return code < 0x7e ? code : 0x7e;
}

// log2 of the magnitude of each code but 0.
struct E4M3Logarithms {
  float of[128];

  E4M3Logarithms() {
    for (int code = 0; code < 127; ++code) {
      const int field = code >> 3, steps = code & 7;
      of[code] =
          log2_of(field == 0 ? static_cast<float>(steps) * 0x1p-9f : static_cast<float>((8 + steps) << field) * 0x1p-10f);
    }
    of[127] = float_of(0x7fc00000);
  }
};

inline const E4M3Logarithms& e4m3_logarithms() {
  static const E4M3Logarithms logarithms;
  return logarithms;
}

// What is stored of groups of neighbors.
struct Groups {
  int64_t size;
  uint8_t* codes;
  bfloat16 *scale, *center;
  uint8_t* sixteenths;  // 16 k
};

inline void decode_group(const float* __restrict logarithms, const uint8_t* __restrict codes, int64_t n, float log_scale,
                         float k, float center, float* __restrict x) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t code = codes[i] & 0x7f;
    float log_size = (logarithms[code] + log_scale) / k;
    log_size = log_size < -127 ? -127 : log_size;
    log_size = log_size > 127 ? 127 : log_size;
    const float size = exp2_of(log_size) * center;
    x[i] = float_of((code == 0 ? 0 : bits_of(size)) | (codes[i] & 0x80u) << 24);
  }
}

// n numbers, of at most kMostGroups groups.
inline void decode(const Groups& groups, int64_t n, float* x) {
  const int64_t count = (n + groups.size - 1) / groups.size;
  float log_scale[kMostGroups], k[kMostGroups], center[kMostGroups];
  for (int64_t g = 0; g < count; ++g) {
    log_scale[g] = log2_of(load(groups.scale[g]));
    k[g] = (groups.sixteenths[g] == 0 ? 1 : groups.sixteenths[g]) / kSteps;
    center[g] = load(groups.center[g]);
  }
  for (int64_t g = 0, i = 0; g < count; ++g, i += groups.size) {
    const int64_t end = n - i < groups.size ? n - i : groups.size;
    decode_group(e4m3_logarithms().of, groups.codes + i, end, log_scale[g], k[g], center[g], x + i);
  }
}

// The bits of the largest magnitude, where NaN is the largest, and of the smallest that is not 0.
inline void find_range(const float* __restrict x, int64_t n, uint32_t* largest, uint32_t* smallest) {
  uint32_t most = 0, least = kNotFinite;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t size = bits_of(x[i]) & 0x7fffffff, regular = size < kLeastNormal ? kNotFinite : size;
    most = size > most ? size : most;
    least = regular < least ? regular : least;
  }
  *largest = most, *smallest = least;
}

// How groups are encoded: the bits of their largest and of their smallest magnitude, and what follows.
struct Expansion {
  uint32_t largest[kMostGroups], smallest[kMostGroups];
  float k[kMostGroups], log_center[kMostGroups], inverse[kMostGroups];
};

inline void fit(Expansion* __restrict of, int64_t count, bfloat16* __restrict scale, bfloat16* __restrict center,
                uint8_t* __restrict sixteenths) {
  for (int64_t g = 0; g < count; ++g) {
    const bool is_zero = of->largest[g] < kLeastNormal, is_finite = of->largest[g] < kNotFinite;
    const float high = is_zero ? 1 : float_of(of->largest[g]), low = is_zero ? 1 : float_of(of->smallest[g]);
    const float octaves = log2_of(high) - log2_of(low);
    float steps = kOctavesE4M3 / (octaves > 1e-6f ? octaves : 1e-6f) * kSteps;
    steps = steps < 1 ? 1 : steps;
    steps = steps > 240 ? 240 : steps;
    const int32_t whole = is_zero ? 16 : static_cast<int32_t>(steps);
    const float nan = float_of(0x7fc00000), k = static_cast<float>(whole) / kSteps;
    store(center[g], is_finite ? sqrtf(high) * sqrtf(low) : nan);
    const float power = is_zero ? 1 : exp2_of(k * log2_of(high / load(center[g]))) / kLargestE4M3;
    store(scale[g], is_finite ? power : nan);
    sixteenths[g] = static_cast<uint8_t>(whole);
    of->k[g] = k, of->log_center[g] = log2_of(load(center[g])), of->inverse[g] = 1 / load(scale[g]);
  }
}

inline void encode_group(const float* __restrict x, int64_t n, float k, float log_center, float inverse,
                         uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = bits_of(x[i]), size = bits & 0x7fffffff;
    const uint32_t code = e4m3_of(exp2_of(k * (log2_of(float_of(size)) - log_center)) * inverse);
    codes[i] = static_cast<uint8_t>(size < kLeastNormal ? 0 : code | (bits >> 24 & 0x80));
  }
}

// A group with a number that is not finite becomes NaN as a whole.
inline void encode(const float* x, int64_t n, const Groups& groups) {
  const int64_t count = (n + groups.size - 1) / groups.size;
  Expansion of;
  const auto length = [&](int64_t g) { return n - g * groups.size < groups.size ? n - g * groups.size : groups.size; };
  for (int64_t g = 0; g < count; ++g) find_range(x + g * groups.size, length(g), of.largest + g, of.smallest + g);
  fit(&of, count, groups.scale, groups.center, groups.sixteenths);
  for (int64_t g = 0; g < count; ++g) {
    uint8_t* codes = groups.codes + g * groups.size;
    if (of.largest[g] >= kNotFinite) {
      memset(codes, 0x7f, length(g));
    } else {
      encode_group(x + g * groups.size, length(g), of.k[g], of.log_center[g], of.inverse[g], codes);
    }
  }
}

}  // namespace KLR_ISA
}  // namespace klr
