// The formulas, one struct a method. They are those of `step` in keras_lrsched/optimizers, in the same order of operations.
//
// `operator()` gives the new value of an entry and sets its state. A method with sums has `sum`, which may set the state, too,
// and gives two numbers whose squares are summed over the tensor; `operator()` then comes after it.
//
// numbers[0] is the scale of all gradients. 1 - beta comes as a number of its own: in float32, 1 - 0.999 keeps four digits.
#pragma once

#include <math.h>

#include "host_device.h"
#include "update.h"

namespace klr {
namespace KLR_ISA {  // its own copy for each instruction set

struct Common {
  float learning_rate, weight_decay, scale;
  KLR_BOTH Common(const klr_tensor& tensor, const float* numbers)
      : learning_rate(tensor.learning_rate), weight_decay(tensor.weight_decay), scale(numbers[0]) {}
};

// numbers: scale, momentum, nesterov
struct SGD : Common {
  static constexpr int slots = 1;
  float momentum;
  bool nesterov;
  KLR_BOTH SGD(const klr_tensor& tensor, const float* numbers, const double*)
      : Common(tensor, numbers), momentum(numbers[1]), nesterov(numbers[2] != 0) {}

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    g *= scale;
    m = momentum * m + g;
    const float u = nesterov ? g + momentum * m : m;
    return w - learning_rate * (u + weight_decay * w);
  }
};

// numbers: scale, beta_1, 1 - beta_1, beta_2, 1 - beta_2
struct Lion : Common {
  static constexpr int slots = 1;
  float beta_1, rest_1, beta_2, rest_2;
  KLR_BOTH Lion(const klr_tensor& tensor, const float* numbers, const double*)
      : Common(tensor, numbers), beta_1(numbers[1]), rest_1(numbers[2]), beta_2(numbers[3]), rest_2(numbers[4]) {}

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    g *= scale;
    const float u = beta_1 * m + rest_1 * g;
    m = beta_2 * m + rest_2 * g;
    const float sign = static_cast<float>(u > 0) - static_cast<float>(u < 0);
    return w - learning_rate * ((u != u ? u : sign) + weight_decay * w);
  }
};

// numbers: scale, beta_1, weight of g in m, beta_2, 1 - beta_2, epsilon, 1 / (1 - beta_1^t), 1 / (1 - beta_2^t)
struct Adam : Common {
  static constexpr int slots = 2;
  float beta_1, rest_1, beta_2, rest_2, epsilon, correction_1, correction_2;
  KLR_BOTH Adam(const klr_tensor& tensor, const float* numbers)
      : Common(tensor, numbers),
        beta_1(numbers[1]),
        rest_1(numbers[2]),
        beta_2(numbers[3]),
        rest_2(numbers[4]),
        epsilon(numbers[5]),
        correction_1(numbers[6]),
        correction_2(numbers[7]) {}

  KLR_BOTH void average(float g, float& m, float& v) const {
    m = beta_1 * m + rest_1 * g;
    v = beta_2 * v + rest_2 * (g * g);
  }

  KLR_BOTH float direction(float m, float v) const { return m * correction_1 / (sqrtf(v * correction_2) + epsilon); }
};

struct AdamW : Adam {
  KLR_BOTH AdamW(const klr_tensor& tensor, const float* numbers, const double*) : Adam(tensor, numbers) {}

  KLR_BOTH float operator()(float w, float g, float& m, float& v) const {
    average(g * scale, m, v);
    return w - learning_rate * (direction(m, v) + weight_decay * w);
  }
};

// numbers: as Adam. v is that of the block, already up to date.
struct AdamMini : Adam {
  KLR_BOTH AdamMini(const klr_tensor& tensor, const float* numbers, const double*) : Adam(tensor, numbers) {}

  KLR_BOTH float operator()(float w, float g, float& m, float& v) const {
    m = beta_1 * m + rest_1 * (g * scale);
    return w - learning_rate * (direction(m, v) + weight_decay * w);
  }
};

// numbers: scale, momentum, nesterov, trust_coefficient, epsilon, trust_clip, learning_rate_in_momentum
struct Lars : Common {
  static constexpr int slots = 1;
  float momentum, ratio, inside, outside;
  bool nesterov;
  KLR_BOTH Lars(const klr_tensor& tensor, const float* numbers, const double* totals)
      : Common(tensor, numbers), momentum(numbers[1]), ratio(1), nesterov(numbers[2] != 0) {
    const bool rate_inside = numbers[6] != 0;
    inside = rate_inside ? learning_rate : 1;
    outside = rate_inside ? 1 : learning_rate;
    if (totals == nullptr || !tensor.adapted) return;
    const float w_norm = static_cast<float>(sqrt(totals[0])), g_norm = static_cast<float>(sqrt(totals[1]));
    if (w_norm > 0 && g_norm > 0) ratio = numbers[3] * w_norm / (g_norm + weight_decay * w_norm + numbers[4]);
    if (numbers[5] != 0) ratio = ratio / learning_rate > 1 ? 1 : ratio / learning_rate;
  }

  KLR_BOTH void sum(float w, float g, float&, float&, float& a, float& b) const { a = w, b = g * scale; }

  KLR_BOTH float operator()(float w, float g, float& m, float&) const {
    const float d = ratio * (g * scale + weight_decay * w);
    m = momentum * m + inside * d;
    const float move = nesterov ? inside * d + momentum * m : m;
    return w - outside * move;
  }
};

// numbers: as Adam; then decay_placement (0 inside of the ratio, 1 outside, 2 in the gradient), trust_clip
struct Lamb : Adam {
  int placement;
  float ratio;
  KLR_BOTH Lamb(const klr_tensor& tensor, const float* numbers, const double* totals)
      : Adam(tensor, numbers), placement(static_cast<int>(numbers[8])), ratio(1) {
    if (totals == nullptr || !tensor.adapted) return;
    const float w_norm = static_cast<float>(sqrt(totals[0])), u_norm = static_cast<float>(sqrt(totals[1]));
    if (w_norm > 0 && u_norm > 0) ratio = w_norm / u_norm;
    if (numbers[9] != 0 && ratio > 1) ratio = 1;
  }

  KLR_BOTH float moved(float w) const { return placement == 1 ? w - learning_rate * weight_decay * w : w; }

  KLR_BOTH float full_direction(float w, float m, float v) const {
    const float u = direction(m, v);
    return placement == 0 ? u + weight_decay * w : u;
  }

  KLR_BOTH void sum(float w, float g, float& m, float& v, float& a, float& b) const {
    g *= scale;
    average(placement == 2 ? g + weight_decay * w : g, m, v);
    a = moved(w), b = full_direction(w, m, v);
  }

  KLR_BOTH float operator()(float w, float, float& m, float& v) const {
    return moved(w) - learning_rate * ratio * full_direction(w, m, v);
  }
};

}  // namespace KLR_ISA
}  // namespace klr
