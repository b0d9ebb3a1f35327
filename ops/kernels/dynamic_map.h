// Moments in 8 bits: codes of the 256 numbers of `dynamic_map` in keras_lrsched/precision, in units of the largest magnitude of
// a block of neighbors.
#pragma once

#include <stdint.h>

#include <algorithm>

#include "dtypes.h"

namespace klr {
namespace KLR_ISA {

constexpr float kLargest = 0x1p126f;  // compiled code elsewhere flushes the inverse of a larger number to zero

// The numbers in ascending order, the middles between neighbors, and for the upper half of the bits of a number the lowest
// code of such numbers.
struct DynamicMap {
  float numbers[256], middles[256];
  uint8_t lowest[65536];

  explicit DynamicMap(bool has_sign) {
    int count = 0;
    numbers[count++] = 0, numbers[count++] = 1;
    constexpr double kScales[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
    for (int decade = 0; decade < 7; ++decade) {
      const int steps = 1 << (decade + !has_sign);
      for (int i = 0; i < steps; ++i) {
        const float middle = static_cast<float>(kScales[decade]) * ((edge(i, steps) + edge(i + 1, steps)) / 2);
        numbers[count++] = middle;
        if (has_sign) numbers[count++] = -middle;
      }
    }
    std::sort(numbers, numbers + 256);
    for (int i = 0; i < 255; ++i) middles[i] = static_cast<float>((static_cast<double>(numbers[i]) + numbers[i + 1]) / 2);
    middles[255] = float_of(0x7f800000);
    for (uint32_t upper = 0; upper < 65536; ++upper) {
      const float smallest = float_of(upper << 16 | (upper >= 0x8000 ? 0xffff : 0));
      const float x = smallest != smallest ? 0 : smallest;
      lowest[upper] = static_cast<uint8_t>(std::lower_bound(middles, middles + 255, x) - middles);
    }
  }

  // From 0.1 to 1, rounded as in PyTorch, from both ends.
  static float edge(int i, int steps) {
    const double step = static_cast<float>(0.9 / steps);
    return static_cast<float>(i <= steps / 2 ? static_cast<double>(0.1f) + step * i : 1 - step * (steps - i));
  }
};

inline const DynamicMap& dynamic_map(bool has_sign) {
  static const DynamicMap with_sign(true), without(false);
  return has_sign ? with_sign : without;
}

inline void decode(const DynamicMap& map, const uint8_t* __restrict codes, float absmax, int64_t n, float* __restrict x) {
  for (int64_t i = 0; i < n; ++i) x[i] = map.numbers[codes[i]] * absmax;
}

// The nearest numbers; their scale is returned. Without a sign, only 0 becomes 0.
inline float encode(const DynamicMap& map, bool has_sign, const float* __restrict x, int64_t n, uint8_t* __restrict codes) {
  uint32_t largest = 0;  // as bits, where NaN is the largest
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t size = bits_of(x[i]) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  float absmax = float_of(largest);
  if (!(absmax <= kLargest)) absmax *= float_of(0x7f800000);
  const float divisor = absmax == 0 ? 1 : absmax;
  for (int64_t i = 0; i < n; ++i) {
    const float y = x[i] / divisor;
    const uint8_t low = map.lowest[bits_of(y) >> 16];
    const uint8_t code = static_cast<uint8_t>(low + (y > map.middles[low]));
    codes[i] = has_sign || code > 0 ? code : static_cast<uint8_t>(x[i] > 0);
  }
  return absmax;
}

}  // namespace KLR_ISA
}  // namespace klr
