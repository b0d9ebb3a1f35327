// Element types: from a float32 to the nearest element, or up or down at random, and back.
//
// An element +-2^(exponent - M) steps, of M bits of mantissa and of an exponent of at least kMinExponent, has the code
// (exponent - kMinExponent) 2^M + steps. So what rounds to `steps` needs no case of its own below 2^kMinExponent.
#pragma once

#include <math.h>
#include <stdint.h>

#include "dtypes.h"
#include "host_device.h"
#include "quantize_lists.h"

namespace klr {
namespace KLR_ISA {

constexpr uint32_t kSign = 0x80000000, kInfinity = 0x7f800000, kMantissa = 0x7fffff;
constexpr float kLargest = 3.4028234663852886e38f;

// Of a sign, an exponent and M bits of mantissa. kNan and kInfinityCode are 0 where there are none: NaN becomes zero.
template <int kBits_, int M_, int kMinExponent_, int kMaxCode_, bool kInteger_, int kNan_, int kInfinityCode_>
struct ElementType {
  static constexpr int kBits = kBits_, M = M_, kMinExponent = kMinExponent_, kMaxCode = kMaxCode_;
  static constexpr int kNan = kNan_, kInfinityCode = kInfinityCode_;
  static constexpr bool kInteger = kInteger_;
  static constexpr uint32_t kHalf = 1u << (kBits - 1);
  static constexpr uint32_t kFirst = static_cast<uint32_t>(127 + kMinExponent) << M;  // of codes, had they the bias of float32
  static constexpr int kMaxField = kMaxCode >> M, kMaxMantissa = kMaxCode & ((1 << M) - 1);
  static constexpr int kMaxExponent = kMinExponent + kMaxField - 1;
  static constexpr uint32_t kMaxBits = static_cast<uint32_t>(127 + kMaxExponent) << 23 | static_cast<uint32_t>(kMaxMantissa)
                                                                                             << (23 - M);
};

#define KLR_TYPE(ID, bits, mantissa, min_exponent, max_code, integer, nan, infinity) \
  using ID = ElementType<bits, mantissa, min_exponent, max_code, integer, nan, infinity>;
KLR_QUANTIZER_ELEMENTS(KLR_TYPE)
#undef KLR_TYPE

// |x|, at most the largest element; also for NaN.
template <class E>
KLR_INLINE float saturated(float x) {
  const float size = float_of(bits_of(x) & ~kSign), largest = float_of(E::kMaxBits);
  return size < largest ? size : largest;
}

// The exponent field of a size, as it stands in its bits; at least that of the smallest normal element.
template <class E>
KLR_INLINE int32_t field_of(float size) {
  const int32_t field = static_cast<int32_t>(bits_of(size) & kInfinity), least = (127 + E::kMinExponent) << 23;
  return field > least ? field : least;
}

// Sum and summand: their difference is the size in whole steps, rounded by the addition.
struct Sum {
  int32_t field;
  float magic, sum;
};

template <class E>
KLR_INLINE Sum add_magic(float size) {
  const int32_t field = field_of<E>(size);
  const float magic = float_of(static_cast<uint32_t>(field + ((23 - E::M) << 23)));
  return {field, magic, size + magic};
}

// Whole steps of a size, rounded up if noise of 30 bits is larger than what is cut off is small.
template <class E>
KLR_INLINE uint32_t random_steps(float size, uint32_t noise) {
  const int32_t field = static_cast<int32_t>(bits_of(size) >> 23), below = 127 + E::kMinExponent - field;
  uint32_t significand = field > 0 ? (bits_of(size) & kMantissa) | 1u << 23 : 0;
  int32_t places = 23 - E::M + (below > 0 ? below : 0);
  const int32_t first = places - 30 > 30 ? 30 : places - 30;
  significand >>= first > 0 ? first : 0;
  places = places < 30 ? places : 30;
  return (significand + (noise >> (30 - places))) >> places;
}

template <class E>
KLR_INLINE uint32_t with_sign(uint32_t code, float x) {
  const bool negative = bits_of(x) & kSign;
  if (E::kInteger) return (negative ? 0u - code : code) & (2 * E::kHalf - 1);
  return (x != x ? E::kNan : code) | (bits_of(x) >> 31) * E::kHalf;
}

// The code of x, in units of the element.
template <class E, bool kRandom>
KLR_INLINE uint32_t code_of(float x, uint32_t noise) {
  const float size = saturated<E>(x);
  if (kRandom) {
    const uint32_t base = (static_cast<uint32_t>(field_of<E>(size)) >> (23 - E::M)) - E::kFirst;
    return with_sign<E>(base + random_steps<E>(size, noise), x);
  }
  const Sum s = add_magic<E>(size);
  const uint32_t base = (static_cast<uint32_t>(s.field) >> (23 - E::M)) - E::kFirst;
  return with_sign<E>(base + (bits_of(s.sum) - bits_of(s.magic)), x);
}

// The value of the code of x.
template <class E, bool kRandom>
KLR_INLINE float rounded(float x, uint32_t noise) {
  const float size = saturated<E>(x);
  float y;
  if (kRandom) {
    const float step = float_of(static_cast<uint32_t>(field_of<E>(size) - (E::M << 23)));
    y = static_cast<float>(static_cast<int32_t>(random_steps<E>(size, noise))) * step;
  } else {
    const Sum s = add_magic<E>(size);
    y = s.sum - s.magic;
  }
  if (!E::kInteger) y = x != x ? (E::kNan ? x : 0.0f) : y;
  y = float_of(bits_of(y) | (bits_of(x) & kSign));
  return E::kInteger ? y + 0.0f : y;  // an integer has no negative zero
}

// The value of a code.
template <class E>
KLR_INLINE float value_of(uint32_t code) {
  constexpr int kBias = 127 + E::kMinExponent - E::M;
  if (E::kInteger) {
    const int32_t extended = static_cast<int32_t>(code << (32 - E::kBits)) >> (32 - E::kBits);
    return static_cast<float>(extended) * float_of(static_cast<uint32_t>(kBias) << 23);
  }
  const int32_t size = static_cast<int32_t>(code & (E::kHalf - 1)), field = size >> E::M;
  const int32_t above = field > 1 ? field - 1 : 0;
  float y = static_cast<float>(size - (above << E::M)) * float_of(static_cast<uint32_t>(kBias + above) << 23);
  if (E::kInfinityCode) y = size >= E::kInfinityCode ? float_of(kInfinity + (size > E::kInfinityCode ? 1 << 22 : 0)) : y;
  if (E::kNan && !E::kInfinityCode) y = size == E::kNan ? float_of(kInfinity + (1 << 22)) : y;
  return float_of(bits_of(y) | (code & E::kHalf) << (32 - E::kBits));
}

// Products and quotients as the plain path has them: first to 24 bits, and then, if they are below 2^-126, to what is left
// there.
struct AllNumbers {
  KLR_BOTH static float product(float x, float y) { return narrowed(static_cast<double>(x) * y); }
  KLR_BOTH static float quotient(float x, float y) { return narrowed(static_cast<double>(x) / y); }

  KLR_BOTH static float narrowed(double x) {
    const double size = x < 0 ? -x : x;
    if (size == 0 || !(size < 1.1754943508222875e-38)) return static_cast<float>(x);
    int exponent;
    const double significand = static_cast<float>(frexp(x, &exponent));
    return static_cast<float>(ldexp(significand, exponent));
  }
};

// The same where no result is below 2^-126.
struct OrdinaryNumbers {
  KLR_INLINE static float product(float x, float y) { return x * y; }
  KLR_INLINE static float quotient(float x, float y) { return x / y; }
};

KLR_BOTH inline float product(float x, float y) { return AllNumbers::product(x, y); }
KLR_BOTH inline float quotient(float x, float y) { return AllNumbers::quotient(x, y); }
KLR_INLINE float at_most_largest(float x) { return x < kLargest ? x : kLargest; }

}  // namespace KLR_ISA
}  // namespace klr
