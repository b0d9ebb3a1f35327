// What the kernels of custom_ops_cuda/update.cu do, done on the host, agrees with ops/kernels.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "../../custom_ops_cuda/update.h"

namespace {

struct alignas(16) Four {
  float entries[4];
};

// Entries at an address that suits wide accesses, as those of frameworks do.
struct Entries {
  std::vector<Four> memory;
  explicit Entries(int64_t size) : memory(size / 4 + 1) {}
  float* data() { return memory[0].entries; }
};

struct Variable {
  int64_t size, blocks, inner;  // the last two are Adam-mini's
};

const Variable kVariables[] = {
    {1, 1, 1}, {7, 7, 1}, {30, 5, 1}, {45, 3, 5}, {100000, 1, 100000}, {70000, 70, 1}, {70000, 70, 100}, {33 * 40, 33, 40},
};
constexpr int kCount = sizeof(kVariables) / sizeof(*kVariables), kUpdates = 3;

uint16_t upper(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>(bits >> 16);
}

float number(uint16_t upper) {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Variables, gradients and state of one kind, filled with the same random numbers each time.
struct Problem {
  std::vector<Entries> memory;
  std::vector<klr_tensor> tensors;
  std::vector<float> rates;

  Problem(int method, int dtype) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    memory.reserve(4 * kCount);
    for (int t = 0; t < kCount; ++t) {
      const Variable& variable = kVariables[t];
      klr_tensor tensor = {};
      void* parts[4];
      for (int part = 0; part < 4; ++part) {
        memory.emplace_back(variable.size);
        parts[part] = memory.back().data();
        for (int64_t i = 0; i < variable.size; ++i) {
          const float x = part < 2 ? normal(random) : 0;
          if (dtype == KLR_BFLOAT16 && part < 2) {
            static_cast<uint16_t*>(parts[part])[i] = upper(x);
          } else {
            static_cast<float*>(parts[part])[i] = x;
          }
        }
      }
      tensor.w = parts[0], tensor.g = parts[1];
      tensor.slots[0] = static_cast<float*>(parts[2]);
      tensor.slots[1] = klr_slots(method) > 1 ? static_cast<float*>(parts[3]) : nullptr;
      tensor.size = variable.size, tensor.w_dtype = tensor.g_dtype = dtype;
      tensor.learning_rate = 0.01f * static_cast<float>(t + 1), tensor.weight_decay = 0.1f, tensor.adapted = t % 3 != 0;
      tensor.index = t;
      tensor.blocks = method == KLR_ADAM_MINI ? variable.blocks : 1,
      tensor.inner = method == KLR_ADAM_MINI ? variable.inner : 1;
      tensors.push_back(tensor);
      for (float rate : {tensor.learning_rate, tensor.weight_decay, tensor.adapted ? 1.0f : 0.0f}) rates.push_back(rate);
    }
  }

  float weight(int t, int64_t i) const {
    const klr_tensor& tensor = tensors[t];
    return tensor.w_dtype == KLR_BFLOAT16 ? number(static_cast<uint16_t*>(tensor.w)[i]) : static_cast<float*>(tensor.w)[i];
  }
};

void update_on_cpu(int method, Problem* problem, const klr_settings& settings) {
  int64_t first[kCount + 1], pieces[kCount + 1];
  double totals[2 * kCount] = {};
  klr_plan(problem->tensors.data(), kCount, first);
  if (klr_has_sums(method)) {
    klr_plan_sums(method, problem->tensors.data(), kCount, pieces);
    std::vector<double> sums(2 * pieces[kCount]);
    klr_sum(method, problem->tensors.data(), kCount, pieces, &settings, 0, pieces[kCount], sums.data());
    klr_reduce(kCount, pieces, sums.data(), totals);
  }
  klr_update(method, problem->tensors.data(), kCount, first, &settings, 0, first[kCount], totals);
}

void update_as_cuda(int method, Problem* problem, const klr_settings& settings) {
  std::vector<uint8_t> workspace(klr_cuda_workspace(method, problem->tensors.data(), kCount) + 16);
  if (klr_cuda_update(method, problem->tensors.data(), kCount, problem->rates.data(), settings.parameters, settings.seed,
                      settings.stochastic_rounding, workspace.data(), nullptr) != 0) {
    std::printf("method %d: an error\n", method);
    std::exit(1);
  }
}

// The largest difference of a weight, in parts of the largest weight.
double difference(const Problem& one, const Problem& other) {
  double largest = 0, apart = 0;
  for (int t = 0; t < kCount; ++t) {
    for (int64_t i = 0; i < kVariables[t].size; ++i) {
      largest = std::fmax(largest, std::fabs(one.weight(t, i)));
      apart = std::fmax(apart, std::fabs(one.weight(t, i) - other.weight(t, i)));
    }
  }
  return apart / largest;
}

// Of all weights, the share that differs.
double differing(const Problem& one, const Problem& other) {
  double count = 0, all = 0;
  for (int t = 0; t < kCount; ++t) {
    for (int64_t i = 0; i < kVariables[t].size; ++i, ++all) count += one.weight(t, i) != other.weight(t, i);
  }
  return count / all;
}

}  // namespace

int main() {
  for (int method = 0; method < KLR_METHODS; ++method) {
    for (int kind = 0; kind < 3; ++kind) {  // float32, bfloat16, bfloat16 with stochastic rounding
      const int dtype = kind == 0 ? KLR_FLOAT32 : KLR_BFLOAT16;
      float parameters[] = {0.5f, 0.9f, 0.1f, 0.99f, 0.01f, 1e-8f, 1.5f, 2.0f, 0, 0};  // gradient_scale, ...
      if (method == KLR_SGD || method == KLR_LARS) parameters[2] = 0;                  // nesterov
      const klr_settings settings = {parameters, {1, 2}, kind == 2};
      Problem cpu(method, dtype), cuda(method, dtype), start(method, dtype);
      for (int i = 0; i < kUpdates; ++i) update_on_cpu(method, &cpu, settings), update_as_cuda(method, &cuda, settings);
      const double apart = difference(cpu, cuda), moved = difference(start, cuda);
      // The last bit of a float32 may decide how a number is rounded to bfloat16, in few entries. Random bits are the same.
      const double allowed = kind == 0 ? 2e-6 : 4e-3, share = kind == 0 ? 0 : differing(cpu, cuda);
      if (!(apart <= allowed) || !(share < 1e-3) || !(moved > 0)) {
        std::printf("method %d, kind %d: apart by %g, %g of all weights, moved by %g\n", method, kind, apart, share, moved);
        return 1;
      }
    }
  }
  std::printf("updates on CUDA, emulated: all hold (%s)\n", klr_instruction_set());
}
