// The formulas, one struct a rule of update_rules.h. They are those of `step` in keras_lrsched/optimizers, in the same order of
// operations.
//
// `operator()` returns the new value of an entry and sets its state. A rule with sums has `sum`, which may set the state, too,
// and computes two numbers whose squares are summed over the tensor; `operator()` then comes after it.
#pragma once

#include <math.h>

#include <type_traits>

#include "host_device.h"
#include "update.h"

namespace klr {
namespace KLR_ISA {  // its own copy for each instruction set

#define KLR_PARAMETERS(ID, Struct, name, in_codes, ...) \
  struct Struct##Parameters {                           \
    float gradient_scale, __VA_ARGS__;                  \
  };
KLR_UPDATE_RULES(KLR_PARAMETERS)
#undef KLR_PARAMETERS

template <class P>
struct Rule {
  using Parameters = P;
  static constexpr bool in_blocks = false;  // whether the second slot has a number a block

  P p;
  float learning_rate, weight_decay;

  KLR_BOTH Rule(const klr_tensor& tensor, const float* parameters)
      : p(*reinterpret_cast<const P*>(parameters)), learning_rate(tensor.learning_rate), weight_decay(tensor.weight_decay) {}
};

template <class Method, class = void>
struct has_sum : std::false_type {};
template <class Method>
struct has_sum<Method, std::void_t<decltype(&Method::sum)>> : std::true_type {};

struct SGD : Rule<SGDParameters> {
  static constexpr int slots = 1;
  bool nesterov;
  KLR_BOTH SGD(const klr_tensor& tensor, const float* parameters, const double*)
      : Rule(tensor, parameters), nesterov(p.nesterov != 0) {}

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    g *= p.gradient_scale;
    m = p.momentum * m + g;
    const float u = nesterov ? g + p.momentum * m : m;
    return w - learning_rate * (u + weight_decay * w);
  }
};

struct Lion : Rule<LionParameters> {
  static constexpr int slots = 1;
  KLR_BOTH Lion(const klr_tensor& tensor, const float* parameters, const double*) : Rule(tensor, parameters) {}

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    g *= p.gradient_scale;
    const float u = p.beta_1 * m + p.one_minus_beta_1 * g;
    m = p.beta_2 * m + p.one_minus_beta_2 * g;
    const float sign = static_cast<float>(u > 0) - static_cast<float>(u < 0);
    return w - learning_rate * ((u != u ? u : sign) + weight_decay * w);
  }
};

template <class P>
struct Adam : Rule<P> {
  using Rule<P>::p;
  static constexpr int slots = 2;
  KLR_BOTH Adam(const klr_tensor& tensor, const float* parameters) : Rule<P>(tensor, parameters) {}

  KLR_BOTH void average(float g, float& m, float& v) const {
    m = p.beta_1 * m + p.gradient_weight * g;
    v = p.beta_2 * v + p.one_minus_beta_2 * (g * g);
  }

  KLR_BOTH float direction(float m, float v) const { return m * p.correction_1 / (sqrtf(v * p.correction_2) + p.epsilon); }
};

struct AdamW : Adam<AdamWParameters> {
  KLR_BOTH AdamW(const klr_tensor& tensor, const float* parameters, const double*) : Adam(tensor, parameters) {}

  KLR_BOTH float operator()(float w, float g, float& m, float& v) const {
    average(g * p.gradient_scale, m, v);
    return w - learning_rate * (direction(m, v) + weight_decay * w);
  }
};

// v is that of the block, already up to date.
struct AdamMini : Adam<AdamMiniParameters> {
  static constexpr bool in_blocks = true;
  KLR_BOTH AdamMini(const klr_tensor& tensor, const float* parameters, const double*) : Adam(tensor, parameters) {}

  KLR_BOTH float operator()(float w, float g, float& m, float& v) const {
    m = p.beta_1 * m + p.gradient_weight * (g * p.gradient_scale);
    return w - learning_rate * (direction(m, v) + weight_decay * w);
  }
};

struct Lars : Rule<LarsParameters> {
  static constexpr int slots = 1;
  float ratio, inside, outside;
  bool nesterov;
  KLR_BOTH Lars(const klr_tensor& tensor, const float* parameters, const double* totals)
      : Rule(tensor, parameters), ratio(1), nesterov(p.nesterov != 0) {
    const bool rate_inside = p.learning_rate_in_momentum != 0;
    inside = rate_inside ? learning_rate : 1;
    outside = rate_inside ? 1 : learning_rate;
    if (totals == nullptr || !tensor.adapted) return;
    const float w_norm = static_cast<float>(sqrt(totals[0])), g_norm = static_cast<float>(sqrt(totals[1]));
    if (w_norm > 0 && g_norm > 0) ratio = p.trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + p.epsilon);
    if (p.trust_clip != 0) ratio = ratio / learning_rate > 1 ? 1 : ratio / learning_rate;
  }

  KLR_BOTH void sum(float w, float g, float&, float&, float& a, float& b) const { a = w, b = g * p.gradient_scale; }

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    const float d = ratio * (g * p.gradient_scale + weight_decay * w);
    m = p.momentum * m + inside * d;
    const float move = nesterov ? inside * d + p.momentum * m : m;
    return w - outside * move;
  }
};

struct Lamb : Adam<LambParameters> {
  int placement;
  float ratio;
  KLR_BOTH Lamb(const klr_tensor& tensor, const float* parameters, const double* totals)
      : Adam(tensor, parameters), placement(static_cast<int>(p.decay_placement)), ratio(1) {
    if (totals == nullptr || !tensor.adapted) return;
    const float w_norm = static_cast<float>(sqrt(totals[0])), u_norm = static_cast<float>(sqrt(totals[1]));
    if (w_norm > 0 && u_norm > 0) ratio = w_norm / u_norm;
    if (p.trust_clip != 0 && ratio > 1) ratio = 1;
  }

  KLR_BOTH float moved(float w) const { return placement == 1 ? w - learning_rate * weight_decay * w : w; }

  KLR_BOTH float full_direction(float w, float m, float v) const {
    const float u = direction(m, v);
    return placement == 0 ? u + weight_decay * w : u;
  }

  KLR_BOTH void sum(float w, float g, float& m, float& v, float& a, float& b) const {
    g *= p.gradient_scale;
    average(placement == 2 ? g + weight_decay * w : g, m, v);
    a = moved(w), b = full_direction(w, m, v);
  }

  KLR_BOTH float operator()(float w, float, float& m, float& v) const {
    return moved(w) - learning_rate * ratio * full_direction(w, m, v);
  }
};

}  // namespace KLR_ISA
}  // namespace klr
