// Philox4x32-10 (Salmon et al. 2011): random bits as a function of a counter and a key, with no state to share.
#pragma once

#include <stdint.h>

namespace klr {
namespace KLR_ISA {  // its own copy for each instruction set

constexpr int kLanes = 16;  // counters at once, a loop that compilers turn into vectors

// 16 random bits for each of `8 * kLanes` entries; block b of tensor t has entries b * 8 * kLanes, ...
inline void random_bits(uint32_t block, uint32_t tensor, const uint32_t seed[2], uint16_t out[8 * kLanes]) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    c0[i] = i, c1[i] = block, c2[i] = tensor, c3[i] = 0;
  }
  uint32_t k0 = seed[0], k1 = seed[1];
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t a = static_cast<uint64_t>(c0[i]) * 0xD2511F53, b = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57;
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(b);
      c3[i] = static_cast<uint32_t>(a);
    }
  }
  const uint32_t* words[4] = {c0, c1, c2, c3};
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < kLanes; ++i) {
      out[(2 * j) * kLanes + i] = static_cast<uint16_t>(words[j][i]);
      out[(2 * j + 1) * kLanes + i] = static_cast<uint16_t>(words[j][i] >> 16);
    }
  }
}

}  // namespace KLR_ISA
}  // namespace klr
