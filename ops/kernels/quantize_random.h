// Random bits: words of the stream of Philox4x32-10 (Salmon et al. 2011), without their two lowest bits. Entry i of a tensor
// has word i, which is number i % 4 of counter i / 4.
#pragma once

#include <stdint.h>
#include <string.h>

#include "philox.h"

namespace klr {
namespace KLR_ISA {

constexpr int64_t kCounters = 32;  // at once, a loop that compilers turn into vectors (16 are unrolled)

inline void random_words(const uint32_t* __restrict counters, const uint32_t seed[2], uint32_t* __restrict words) {
  uint32_t c0[kCounters], c1[kCounters], c2[kCounters], c3[kCounters];
  for (int i = 0; i < kCounters; ++i) c0[i] = counters[i], c1[i] = c2[i] = c3[i] = 0;
  philox(seed[0], seed[1], c0, c1, c2, c3);
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
    random_words(counters, seed, words);
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
