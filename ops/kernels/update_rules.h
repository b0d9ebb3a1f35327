// The list of compiled optimizer updates. From it come the enumeration, the names, the tables of functions, the cases of CUDA,
// the structures of parameters, and the check in Python: keras_lrsched/kernels/_lists.py reads this file.
//
// To add one: a row here, and a struct of that name in update_formulas.h.
//
//   RULE(KLR_ constant, struct, name, whether its state may be in a code, parameters...)
//
// Parameters are float32; a flag is 0 or 1. Each rule has `gradient_scale` before them, by which it multiplies all gradients.
// 1 - beta is a parameter of its own: in float32, 1 - 0.999 keeps four digits.
#pragma once

// gradient_weight: of g in m, 1 - beta_1 unless noted. correction_1, correction_2: 1 / (1 - beta^t).
// decay_placement: 0 inside of the trust ratio, 1 outside, 2 in the gradient.
// clang-format off
#define KLR_UPDATE_RULES(RULE)                                                                                            \
  RULE(SGD, SGD, sgd, 1, momentum, nesterov)                                                                              \
  RULE(LION, Lion, lion, 1, beta_1, one_minus_beta_1, beta_2, one_minus_beta_2)                                           \
  RULE(ADAMW, AdamW, adamw, 1, beta_1, gradient_weight, beta_2, one_minus_beta_2, epsilon, correction_1, correction_2)    \
  RULE(LARS, Lars, lars, 0, momentum, nesterov, trust_coefficient, epsilon, trust_clip, learning_rate_in_momentum)        \
  RULE(LAMB, Lamb, lamb, 0, beta_1, gradient_weight, beta_2, one_minus_beta_2, epsilon, correction_1, correction_2,       \
       decay_placement, trust_clip)                                                                                       \
  RULE(ADAM_MINI, AdamMini, adam_mini, 0, beta_1, gradient_weight, beta_2, one_minus_beta_2, epsilon, correction_1,       \
       correction_2)

// CODE(KLR_ constant, name): how state is kept in 8 bits. A slot has several parts: codes, a uint8 for each entry, of which those
// of the first slot have a sign; then, for each block of neighbors, a float32 scale (dynamic_map.h), or a scale and a center in
// bfloat16 and a uint8 (range_expansion.h).
#define KLR_STATE_CODES(CODE)  \
  CODE(BLOCKWISE8, blockwise8) \
  CODE(COAT, coat)
// clang-format on
