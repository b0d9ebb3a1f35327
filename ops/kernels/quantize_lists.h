// The lists of element types and of rules of scales. From them come the enumerations, the types, the tables of functions, the
// cases of CUDA, and the lists in Python: keras_lrsched/kernels/_lists.py reads this file.
#pragma once

// clang-format off

// ELEMENT(name, bits, bits of mantissa, smallest exponent, largest code, whether an integer, code of NaN, code of infinity)
// A code of 0 where there is none: NaN becomes zero.
#define KLR_QUANTIZER_ELEMENTS(ELEMENT)             \
  ELEMENT(E4M3, 8, 3, -6, 0x7E, 0, 0x7F, 0)         \
  ELEMENT(E5M2, 8, 2, -14, 0x7B, 0, 0x7E, 0x7C)     \
  ELEMENT(E2M3, 6, 3, 0, 0x1F, 0, 0, 0)             \
  ELEMENT(E3M2, 6, 2, -2, 0x1F, 0, 0, 0)            \
  ELEMENT(E2M1, 4, 1, 0, 0x7, 0, 0, 0)              \
  ELEMENT(FIXED8, 8, 6, 0, 127, 1, 0, 0)            \
  ELEMENT(INT8, 8, 6, 6, 127, 1, 0, 0)              \
  ELEMENT(INT4, 4, 2, 2, 7, 1, 0, 0)

// SCALE_RULE(KLR_ constant, name): how scales are found, and of which type they are: E8M0 (up to even), float32, or E4M3 and a
// float32 (NVFP4: the last two).
#define KLR_QUANTIZER_SCALE_RULES(SCALE_RULE)       \
  SCALE_RULE(FLOOR, floor)                          \
  SCALE_RULE(CEIL, ceil)                            \
  SCALE_RULE(RCEIL, rceil)                          \
  SCALE_RULE(EVEN, even)                            \
  SCALE_RULE(EXACT, exact)                          \
  SCALE_RULE(POWER_OF_TWO, power_of_two)            \
  SCALE_RULE(SIX, six)                              \
  SCALE_RULE(FOUR_OVER_SIX, four_over_six)

// clang-format on
