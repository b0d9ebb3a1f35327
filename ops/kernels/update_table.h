// What each instruction set offers: a row a method, with a function for each pair of dtypes (variable, gradient).
#pragma once

#include "update.h"

namespace klr {

using Update = void (*)(const klr_tensor&, const klr_settings&, const double* totals, int64_t begin, int64_t end);
using Sum = void (*)(const klr_tensor&, const klr_settings&, int64_t begin, int64_t end, double totals[2]);

struct Row {
  int slots;
  bool has_sums, in_blocks;
  Update update[2][2];
  Sum sum[2][2];
};

namespace baseline {
extern const Row table[KLR_METHODS];
}
#ifdef KLR_X86
namespace avx2 {
extern const Row table[KLR_METHODS];
}
namespace avx512 {
extern const Row table[KLR_METHODS];
}
#endif

}  // namespace klr
