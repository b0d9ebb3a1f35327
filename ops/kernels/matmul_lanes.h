// The vectors of a product, for each instruction set.
//
// A lane is a column of C. `dot` adds to each lane `kGroup` products: of neighbors in k, in 32 bits of a packed column of B
// and in 32 bits of a packed row of A, which all lanes share.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

namespace klr {
namespace KLR_ISA {

#if defined(__AVX512VNNI__)

// vpdpbusd multiplies unsigned with signed bytes: 128 is added to B, and sums start at -128 (sum of the row of A).
using PackedA = int8_t;
using PackedB = uint8_t;
constexpr int kGroup = 4, kLanes = 16, kRows = 4, kVectors = 4, kShift = 128;

#else

// Products of bytes would saturate in 16 bits (vpmaddubsw), so that numbers are packed as int16.
using PackedA = int16_t;
using PackedB = int16_t;
#ifdef __AVX2__
constexpr int kGroup = 2, kLanes = 8, kRows = 4, kVectors = 2, kShift = 0;
#else
constexpr int kGroup = 2, kLanes = 4, kRows = 4, kVectors = 2, kShift = 0;
#endif

#endif

constexpr int kColumns = kVectors * kLanes;

typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef float Floats __attribute__((vector_size(kLanes * 4)));

template <class Vector>
inline Vector load_vector(const void* from) {
  Vector x;
  memcpy(&x, from, sizeof x);
  return x;
}

template <class Vector>
inline void store_vector(void* to, Vector x) {
  memcpy(to, &x, sizeof x);
}

inline Ints dot(Ints sum, int32_t a, Ints b) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, _mm512_set1_epi32(a));
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16(_mm256_set1_epi32(a), (__m256i)b);
#else
  return sum + static_cast<int16_t>(a) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

// Adds to each lane the numbers of a group of a packed row of A.
inline Ints add_group(Ints sum, Ints a) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi8(1), (__m512i)a);
#else
  return sum + (a << 16 >> 16) + (a >> 16);
#endif
}

}  // namespace KLR_ISA
}  // namespace klr
