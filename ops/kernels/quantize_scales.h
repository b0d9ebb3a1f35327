// Scales of blocks: from the bits of their largest magnitude, `amax`, to what is stored, and to the factors on the way in and
// out.
#pragma once

#include "quantize_elements.h"
#include "quantize_table.h"

namespace klr {
namespace KLR_ISA {

constexpr uint32_t kNanByte = 255;
constexpr float kNan = __builtin_nanf("");
constexpr float kSmallScale = 0x1p-100f;  // below it, elements times a scale may be below 2^-126

// The scale of one block. Numbers in units of the element are x factor; x / factor for integers with a float32 scale; 0, and
// not what x is, where factor is 0.
struct Scale {
  float factor, scale;
  uint32_t byte;  // of those that are stored in one
};

KLR_INLINE float power_of_two(uint32_t byte) {  // 2^(byte - 127)
  return byte == 0 ? float_of(1u << 22) : float_of(byte << 23);
}

KLR_INLINE Scale of_byte(uint32_t byte) {
  const bool nan = byte == kNanByte;
  return {nan ? 0 : power_of_two(254 - byte), nan ? kNan : power_of_two(byte), byte};
}

template <class E, class Numbers>
KLR_INLINE Scale fit_e8m0(int rule, uint32_t amax) {
  int32_t byte;
  if (rule == KLR_RCEIL) {
    const uint32_t bits = bits_of(Numbers::product(float_of(amax), static_cast<float>(1.0 / float_of(E::kMaxBits))));
    const uint32_t field = bits >> 23, mantissa = bits & kMantissa;
    byte = static_cast<int32_t>(mantissa == 0 || (field == 0 && mantissa <= 1u << 22) ? field : field + 1);
  } else {
    const uint32_t up = rule == KLR_CEIL ? kMantissa : rule == KLR_EVEN ? 1u << (22 - E::M) : 0;
    const int32_t field = static_cast<int32_t>((amax + up) >> 23);
    byte = (field < 254 ? field : 254) - E::kMaxExponent;  // 2^128 is no float32
  }
  byte = byte < 0 ? 0 : byte > 254 ? 254 : byte;
  return of_byte(amax >= kInfinity ? kNanByte : static_cast<uint32_t>(byte));
}

// scale = amax fl(1 / largest element)
template <class E, class Numbers>
KLR_INLINE Scale fit_integers(int rule, uint32_t amax) {
  float scale = Numbers::product(float_of(amax), static_cast<float>(1.0 / float_of(E::kMaxBits)));
  if (rule == KLR_POWER_OF_TWO) scale = float_of((bits_of(scale) + kMantissa) & kInfinity);
  const bool finite = amax < kInfinity;
  return {finite ? scale : 0, finite ? scale : kNan, 0};
}

// factor = (largest element) / amax, scale = 1 / factor; NaN where a number is not finite
template <class E, class Numbers>
KLR_INLINE Scale fit_floats(int rule, uint32_t amax) {
  float factor = at_most_largest(Numbers::quotient(float_of(E::kMaxBits), float_of(amax)));
  if (rule == KLR_POWER_OF_TWO) factor = float_of(bits_of(factor) & kInfinity);
  if (amax >= kInfinity) return {1, kNan, 0};
  return {amax == 0 ? 1 : factor, amax == 0 ? 1 : Numbers::quotient(1, factor), 0};
}

// What the blocks of a tensor in NVFP4 share: {the factor that makes its amax the largest scale, / 6; its scale}
KLR_BOTH inline void fit_nvfp4_tensor(int rule, uint32_t amax, float tensor[2]) {
  const float target = (rule == KLR_SIX ? 448.0f : 256.0f) * 6.0f;
  const float factor = amax > 0 ? at_most_largest(quotient(target, float_of(amax))) : 1;
  tensor[0] = product(factor, static_cast<float>(1.0 / 6.0));
  tensor[1] = quotient(1, factor);
}

template <class Numbers = AllNumbers>
KLR_INLINE float nvfp4_unit(uint32_t byte, float tensor_scale) {
  return Numbers::product(value_of<E4M3>(byte), tensor_scale);
}

template <class Numbers = AllNumbers>
KLR_INLINE Scale fit_nvfp4(uint32_t amax, float per_six, float tensor_scale) {
  const uint32_t byte = code_of<E4M3, false>(at_most_largest(Numbers::product(float_of(amax), per_six)), 0);
  const float unit = nvfp4_unit<Numbers>(byte, tensor_scale);
  const bool finite = amax < kInfinity;
  return {finite ? at_most_largest(1.0f / unit) : 0, finite ? unit : kNan, finite ? byte : E4M3::kNan};
}

// Of all formats but NVFP4.
template <class E, class Numbers = AllNumbers>
KLR_INLINE Scale fit(int rule, uint32_t amax) {
  if (has_e8m0(rule)) return fit_e8m0<E, Numbers>(rule, amax);
  return E::kInteger ? fit_integers<E, Numbers>(rule, amax) : fit_floats<E, Numbers>(rule, amax);
}

// Of a block that is stored: its bits, and the factor on the way out.
KLR_BOTH inline uint32_t raw_scale(int rule, const void* scales, int64_t i) {
  return has_float32(rule) ? bits_of(static_cast<const float*>(scales)[i]) : static_cast<const uint8_t*>(scales)[i];
}

template <class Numbers = AllNumbers>
KLR_INLINE float scale_of(int rule, uint32_t raw, float tensor_scale) {
  if (has_float32(rule)) return float_of(raw);
  return is_nvfp4(rule) ? nvfp4_unit<Numbers>(raw, tensor_scale) : of_byte(raw).scale;
}

}  // namespace KLR_ISA
}  // namespace klr
