// Codes of numbers in units of the element, and back, and what they look like in memory.
#pragma once

#include <string.h>

#include "quantize_elements.h"

namespace klr {
namespace KLR_ISA {

template <class E, bool kRandom>
void encode(const float* __restrict units, int64_t n, const uint32_t* __restrict noise, uint8_t* __restrict codes) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(code_of<E, kRandom>(units[i], kRandom ? noise[i] : 0));
}

// To the numbers that codes stand for, in place.
template <class E, bool kRandom>
void round(float* __restrict units, int64_t n, const uint32_t* __restrict noise) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) units[i] = rounded<E, kRandom>(units[i], kRandom ? noise[i] : 0);
}

template <class E>
void decode(const uint8_t* __restrict codes, int64_t n, float* __restrict units) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) units[i] = value_of<E>(codes[i]);
}

// Whole groups of neighbors to bytes: 2 of 4 bits to one, 4 of 6 bits to three.
inline void pack(int bits, const uint8_t* __restrict codes, int64_t n, uint8_t* __restrict packed) {
  if (bits == 4) {
    for (int64_t i = 0; i < n / 2; ++i) {
      uint16_t pair;
      memcpy(&pair, codes + 2 * i, 2);
      packed[i] = static_cast<uint8_t>(pair | pair >> 4);
    }
  } else if (bits == 6) {
    for (int64_t i = 0; i < n / 4; ++i) {
      const uint8_t* from = codes + 4 * i;
      const uint32_t word = from[0] | from[1] << 6 | from[2] << 12 | static_cast<uint32_t>(from[3]) << 18;
      packed[3 * i] = static_cast<uint8_t>(word), packed[3 * i + 1] = static_cast<uint8_t>(word >> 8);
      packed[3 * i + 2] = static_cast<uint8_t>(word >> 16);
    }
  } else {
    memcpy(packed, codes, n);
  }
}

inline void unpack(int bits, const uint8_t* __restrict packed, int64_t n, uint8_t* __restrict codes) {
  if (bits == 4) {
    for (int64_t i = 0; i < n / 2; ++i) {
      const uint16_t pair = static_cast<uint16_t>((packed[i] & 15) | (packed[i] >> 4) << 8);
      memcpy(codes + 2 * i, &pair, 2);
    }
  } else if (bits == 6) {
    for (int64_t i = 0; i < n / 4; ++i) {
      const uint32_t word = packed[3 * i] | packed[3 * i + 1] << 8 | packed[3 * i + 2] << 16;
      for (int j = 0; j < 4; ++j) codes[4 * i + j] = word >> (6 * j) & 63;
    }
  } else {
    memcpy(codes, packed, n);
  }
}

}  // namespace KLR_ISA
}  // namespace klr
