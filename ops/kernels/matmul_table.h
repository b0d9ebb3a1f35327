// What each instruction set offers for products of int8 matrices.
#pragma once

#include "matmul.h"

namespace klr {

struct MatmulTable {
  int64_t (*scratch)(const klr_matmul&);
  int64_t (*pieces)(const klr_matmul&);
  void (*pack)(const klr_matmul&, void* scratch, int64_t begin, int64_t end);
  void (*compute)(const klr_matmul&, const void* scratch, int64_t begin, int64_t end);
};

namespace baseline {
extern const MatmulTable matmul_table;
}
#ifdef KLR_X86
namespace avx2 {
extern const MatmulTable matmul_table;
}
namespace avx512vnni {
extern const MatmulTable matmul_table;
}
#endif

}  // namespace klr
