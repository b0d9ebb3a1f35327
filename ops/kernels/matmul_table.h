// What each instruction set offers for products of int8 matrices.
#pragma once

#include "matmul.h"

namespace kl {

struct MatmulTable {
  int64_t (*scratch)(const kl_matmul&);
  int64_t (*pieces)(const kl_matmul&);
  void (*pack)(const kl_matmul&, void* scratch, int64_t begin, int64_t end);
  void (*compute)(const kl_matmul&, const void* scratch, int64_t begin, int64_t end);
};

namespace baseline {
extern const MatmulTable matmul_table;
}
#ifdef KL_X86
namespace avx2 {
extern const MatmulTable matmul_table;
}
namespace avx512vnni {
extern const MatmulTable matmul_table;
}
#endif

}  // namespace kl
