// Entries of a tensor as float32: bfloat16 is the upper half of one.
#pragma once

#include <stdint.h>
#include <string.h>

#include "host_device.h"

namespace klr {
namespace KLR_ISA {  // its own copy for each instruction set

struct bfloat16 {
  uint16_t bits;
};

KLR_BOTH inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

KLR_BOTH inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

KLR_BOTH inline float load(float x) { return x; }
KLR_BOTH inline float load(bfloat16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }

KLR_BOTH inline void store(float& to, float x) { to = x; }

// To the nearest, ties to even. A NaN stays one: its quiet bit is set, as the bits that make it a NaN may be cut off.
KLR_BOTH inline void store(bfloat16& to, float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  to.bits = static_cast<uint16_t>((x != x ? bits | 0x400000 : rounded) >> 16);
}

// Up or down at random: 16 random bits carry into the upper half with a probability equal to the fraction that is cut off.
KLR_BOTH inline void store(bfloat16& to, float x, uint32_t random) {
  const uint32_t bits = bits_of(x);
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  const uint32_t other = x != x ? bits | 0x400000 : bits;
  to.bits = static_cast<uint16_t>((finite ? bits + random : other) >> 16);
}

}  // namespace KLR_ISA
}  // namespace klr
