// A row of blocks of a piece: largest magnitudes, and codes and numbers both ways.
#pragma once

#include <string.h>

#include "quantize_pieces.h"
#include "quantize_scales.h"

namespace kl {
namespace KL_ISA {

// The bits of the largest magnitude. N: how many there are, where that is known.
template <int64_t N>
inline uint32_t largest_of(const float* __restrict x, int64_t n) {
  int32_t largest = 0;
#pragma GCC unroll 1
  for (int64_t i = 0; i < (N ? N : n); ++i) {
    const int32_t size = static_cast<int32_t>(bits_of(x[i]) & ~kSign);
    largest = size > largest ? size : largest;
  }
  return static_cast<uint32_t>(largest);
}

template <int64_t N>
void largest_of_blocks(const float* __restrict x, int64_t n, int64_t blocks, uint32_t* __restrict amax) {
  for (int64_t b = 0; b < blocks; ++b) {
    const uint32_t largest = largest_of<N>(x + b * (N ? N : n), n);
    amax[b] = largest > amax[b] ? largest : amax[b];
  }
}

// Of the blocks of `height` rows, each of n columns.
inline void find_largest(const Rows& x, int64_t height, int64_t n, int64_t blocks, uint32_t* __restrict amax) {
  memset(amax, 0, 4 * blocks);
  for (int64_t r = 0; r < height; ++r) {
    const float* row = x.data + r * x.stride;
    if (n == 16) {
      largest_of_blocks<16>(row, n, blocks, amax);
    } else if (n == 32) {
      largest_of_blocks<32>(row, n, blocks, amax);
    } else {
      largest_of_blocks<0>(row, n, blocks, amax);
    }
  }
}

template <class E, bool kDivide, bool kRandom>
inline void encode(const float* __restrict x, int64_t n, float factor, const uint32_t* __restrict noise,
                   uint8_t* __restrict codes) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<uint8_t>(code_of<E, kRandom>(kDivide ? x[i] / factor : x[i] * factor, kRandom ? noise[i] : 0));
  }
}

template <class E, bool kDivide, bool kRandom>
inline void round_trip(const float* __restrict x, int64_t n, float factor, float scale, const uint32_t* __restrict noise,
                       float* __restrict y) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) {
    y[i] = rounded<E, kRandom>(kDivide ? x[i] / factor : x[i] * factor, kRandom ? noise[i] : 0) * scale;
  }
}

template <class E>
inline void decode(const uint8_t* __restrict codes, int64_t n, float scale, float* __restrict y) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) y[i] = value_of<E>(codes[i]) * scale;
}

// A row of blocks of n entries, N where that is known.
template <class E, bool kDivide, bool kRandom, int64_t N>
void encode_blocks(const float* __restrict x, int64_t n, int64_t blocks, const Scale* __restrict scales,
                   const uint32_t* __restrict noise, uint8_t* __restrict codes) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    if (scales[b].factor == 0) {
      memset(codes + b * size, 0, size);
    } else {
      encode<E, kDivide, kRandom>(x + b * size, size, scales[b].factor, noise + (kRandom ? b * size : 0), codes + b * size);
    }
  }
}

template <class E, bool kDivide, bool kRandom, int64_t N>
void round_trip_blocks(const float* __restrict x, int64_t n, int64_t blocks, bool exact, const Scale* __restrict scales,
                       const uint32_t* __restrict noise, float* __restrict y) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    float* to = y + b * size;
    const Scale& scale = scales[b];
    const bool small = !exact && scale.scale < kSmallScale;
    if (scale.factor == 0) {
      for (int64_t i = 0; i < size; ++i) to[i] = 0 * scale.scale;
      continue;
    }
    round_trip<E, kDivide, kRandom>(x + b * size, size, scale.factor, small ? 1 : scale.scale, noise + (kRandom ? b * size : 0),
                                    to);
    if (small) {
      for (int64_t i = 0; i < size; ++i) to[i] = product(to[i], scale.scale);
    }
  }
}

template <class E, int64_t N>
void decode_blocks(const uint8_t* __restrict codes, int64_t n, int64_t blocks, bool exact, const float* __restrict scales,
                   float* __restrict y) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    const bool small = !exact && scales[b] < kSmallScale;
    decode<E>(codes + b * size, size, small ? 1 : scales[b], y + b * size);
    if (small) {
      for (int64_t i = 0; i < size; ++i) y[b * size + i] = product(y[b * size + i], scales[b]);
    }
  }
}

// Calls f with the size of a block as a type.
template <int64_t N>
struct Size {
  static constexpr int64_t value = N;
};
template <class Function>
void with_size(int64_t n, Function f) {
  if (n == 16) {
    f(Size<16>());
  } else if (n == 32) {
    f(Size<32>());
  } else {
    f(Size<0>());
  }
}

// Calls f with whether to divide, and whether to round at random, as types.
template <class E, class Function>
void with_options(const kl_quantizer& q, Function f) {
  const bool divide = E::kInteger && has_float32(q.rule);
  if constexpr (E::kInteger) {
    if (divide) {
      q.stochastic ? f(Size<1>(), Size<1>()) : f(Size<1>(), Size<0>());
      return;
    }
  }
  q.stochastic ? f(Size<0>(), Size<1>()) : f(Size<0>(), Size<0>());
}

inline void pack4(const uint8_t* __restrict codes, int64_t n, uint8_t* __restrict to) {
  for (int64_t i = 0; i < n / 2; ++i) {
    uint16_t pair;
    memcpy(&pair, codes + 2 * i, 2);
    to[i] = static_cast<uint8_t>(pair | pair >> 4);
  }
}

inline void unpack4(const uint8_t* __restrict packed, int64_t n, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const uint16_t pair = static_cast<uint16_t>((packed[i] & 15) | (packed[i] >> 4) << 8);
    memcpy(codes + 2 * i, &pair, 2);
  }
}

inline void pack6(const uint8_t* __restrict codes, int64_t n, uint8_t* __restrict to) {
  for (int64_t i = 0; i < n / 4; ++i) {
    const uint8_t* from = codes + 4 * i;
    const uint32_t word = from[0] | from[1] << 6 | from[2] << 12 | static_cast<uint32_t>(from[3]) << 18;
    to[3 * i] = static_cast<uint8_t>(word), to[3 * i + 1] = static_cast<uint8_t>(word >> 8);
    to[3 * i + 2] = static_cast<uint8_t>(word >> 16);
  }
}

inline void unpack6(const uint8_t* __restrict packed, int64_t n, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n / 4; ++i) {
    const uint32_t word = packed[3 * i] | packed[3 * i + 1] << 8 | packed[3 * i + 2] << 16;
    for (int j = 0; j < 4; ++j) codes[4 * i + j] = word >> (6 * j) & 63;
  }
}

template <class E>
void encode_row(const kl_quantizer& q, const float* x, int64_t n, int64_t blocks, const Scale* scales, const uint32_t* noise,
                uint8_t* codes) {
  uint8_t unpacked[kBuffer];
  uint8_t* to = E::kBits == 8 ? codes : unpacked;
  with_options<E>(q, [&](auto divide, auto random) {
    with_size(n, [&](auto size) {
      encode_blocks<E, decltype(divide)::value, decltype(random)::value, decltype(size)::value>(x, n, blocks, scales, noise,
                                                                                                to);
    });
  });
  if (E::kBits == 4) pack4(unpacked, n * blocks, codes);
  if (E::kBits == 6) pack6(unpacked, n * blocks, codes);
}

template <class E>
void round_trip_row(const kl_quantizer& q, const float* x, int64_t n, int64_t blocks, const Scale* scales,
                    const uint32_t* noise, float* y) {
  with_options<E>(q, [&](auto divide, auto random) {
    with_size(n, [&](auto size) {
      round_trip_blocks<E, decltype(divide)::value, decltype(random)::value, decltype(size)::value>(
          x, n, blocks, has_e8m0(q.rule), scales, noise, y);
    });
  });
}

template <class E>
void decode_row(int rule, const uint8_t* packed, int64_t n, int64_t blocks, const float* scales, float* y) {
  uint8_t unpacked[kBuffer];
  if (E::kBits == 4) unpack4(packed, n * blocks, unpacked);
  if (E::kBits == 6) unpack6(packed, n * blocks, unpacked);
  const uint8_t* codes = E::kBits == 8 ? packed : unpacked;
  with_size(n, [&](auto size) { decode_blocks<E, decltype(size)::value>(codes, n, blocks, has_e8m0(rule), scales, y); });
}

}  // namespace KL_ISA
}  // namespace kl
