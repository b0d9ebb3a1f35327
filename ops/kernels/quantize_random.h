// Random bits: words of the stream of Philox4x32-10 (Salmon et al. 2011), without their two lowest bits. Entry i of a tensor
// has word i, which is number i % 4 of counter i / 4.
#pragma once

#include <stdint.h>
#include <string.h>

namespace klr {
namespace KLR_ISA {

constexpr int64_t kCounters = 32;  // at once, a loop that compilers turn into vectors (16 are unrolled)

inline void philox(const uint32_t* __restrict counters, const uint32_t seed[2], uint32_t* __restrict words) {
  uint32_t c0[kCounters], c1[kCounters], c2[kCounters], c3[kCounters];
  for (int i = 0; i < kCounters; ++i) c0[i] = counters[i], c1[i] = c2[i] = c3[i] = 0;
  uint32_t k0 = seed[0], k1 = seed[1];
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    for (int i = 0; i < kCounters; ++i) {
      const uint64_t a = static_cast<uint64_t>(c0[i]) * 0xD2511F53, b = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57;
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(b);
      c3[i] = static_cast<uint32_t>(a);
    }
  }
  for (int i = 0; i < kCounters; ++i) {
    words[4 * i] = c0[i] >> 2, words[4 * i + 1] = c1[i] >> 2, words[4 * i + 2] = c2[i] >> 2, words[4 * i + 3] = c3[i] >> 2;
  }
}

// For each of `lines` the words first + line * step ... first + line * step + n - 1, to out + line * stride.
inline void random_words(uint64_t first, int64_t step, int64_t lines, int64_t n, const uint32_t seed[2], uint32_t* out,
                         int64_t stride) {
  uint32_t counters[kCounters] = {}, words[4 * kCounters];
  uint32_t* lines_of[kCounters];
  int64_t places[kCounters];  // of the first word of each in its line: -3 ... n - 1
  int used = 0;
  const auto draw = [&] {
    philox(counters, seed, words);
    for (int i = 0; i < used; ++i) {
      if (places[i] >= 0 && places[i] + 4 <= n) {
        memcpy(lines_of[i] + places[i], words + 4 * i, 16);
      } else {
        const int64_t skipped = places[i] < 0 ? -places[i] : 0, left = n - places[i] < 4 ? n - places[i] : 4;
        for (int64_t j = skipped; j < left; ++j) lines_of[i][places[i] + j] = words[4 * i + j];
      }
    }
    used = 0;
  };
  for (int64_t line = 0; line < lines; ++line) {
    const uint64_t begin = first + line * step;
    for (uint64_t counter = begin / 4; 4 * counter < begin + n; ++counter) {
      counters[used] = static_cast<uint32_t>(counter), lines_of[used] = out + line * stride;
      places[used++] = static_cast<int64_t>(4 * counter - begin);
      if (used == kCounters) draw();
    }
  }
  draw();
}

}  // namespace KLR_ISA
}  // namespace klr
