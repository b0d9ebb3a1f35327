// What each instruction set offers: a row a method, with a function for each pair of dtypes (variable, gradient).
#pragma once

#include "update.h"

namespace kl {

using Update = void (*)(const kl_tensor&, const kl_settings&, const double* totals, int64_t begin, int64_t end);
using Sum = void (*)(const kl_tensor&, const kl_settings&, int64_t begin, int64_t end, double totals[2]);

struct Row {
  int slots;
  bool has_sums;
  Update update[2][2];
  Sum sum[2][2];
};

namespace baseline {
extern const Row table[KL_METHODS];
}
#ifdef KL_X86
namespace avx2 {
extern const Row table[KL_METHODS];
}
namespace avx512 {
extern const Row table[KL_METHODS];
}
#endif

}  // namespace kl
