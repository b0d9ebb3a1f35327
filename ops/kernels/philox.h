// Philox4x32-10 (Salmon et al. 2011): random bits as a function of a counter and a key, with no state to share. The same on
// CPU, on CUDA and in keras_lrsched/_core/philox.py.
#pragma once

#include <stdint.h>

#include "host_device.h"

namespace klr {
namespace KLR_ISA {  // its own copy for each instruction set

// From the four words of n counters to four random words for each, in place; a loop that compilers turn into vectors.
template <int n>
KLR_INLINE void philox(uint32_t k0, uint32_t k1, uint32_t (&c0)[n], uint32_t (&c1)[n], uint32_t (&c2)[n], uint32_t (&c3)[n]) {
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    for (int i = 0; i < n; ++i) {
      const uint64_t a = static_cast<uint64_t>(c0[i]) * 0xD2511F53, b = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57;
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(b);
      c3[i] = static_cast<uint32_t>(a);
    }
  }
}

// Of updates: 16 random bits an entry. Entries b * kEntries ... of tensor t have the counters (0 ... kLanes - 1, b, t, 0):
// first the lower halves of their first words, then the upper halves, then those of their second words, and so on.
constexpr int kLanes = 16, kEntries = 8 * kLanes;

inline void random_bits(uint32_t block, uint32_t tensor, const uint32_t seed[2], uint16_t out[kEntries]) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    c0[i] = i, c1[i] = block, c2[i] = tensor, c3[i] = 0;
  }
  philox(seed[0], seed[1], c0, c1, c2, c3);
  const uint32_t* words[4] = {c0, c1, c2, c3};
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < kLanes; ++i) {
      out[(2 * j) * kLanes + i] = static_cast<uint16_t>(words[j][i]);
      out[(2 * j + 1) * kLanes + i] = static_cast<uint16_t>(words[j][i] >> 16);
    }
  }
}

// Those of entry i alone.
KLR_BOTH inline uint32_t random_bits(int64_t i, uint32_t tensor, const uint32_t seed[2]) {
  const uint32_t place = static_cast<uint32_t>(i % kEntries), row = place / kLanes;
  uint32_t c0[1] = {place % kLanes}, c1[1] = {static_cast<uint32_t>(i / kEntries)}, c2[1] = {tensor}, c3[1] = {0};
  philox(seed[0], seed[1], c0, c1, c2, c3);
  const uint32_t word = row < 2 ? c0[0] : row < 4 ? c1[0] : row < 6 ? c2[0] : c3[0];
  return row % 2 ? word >> 16 : word & 0xffff;
}

}  // namespace KLR_ISA
}  // namespace klr
