// What each instruction set offers for the orthogonalization of matrices.
#pragma once

#include "orthogonalize.h"

namespace klr {

struct OrthogonalizeTable {
  int64_t (*scratch)(const klr_orthogonalize&);
  int64_t (*phases)(const klr_orthogonalize&);
  int64_t (*pieces)(const klr_orthogonalize&, int64_t phase);
  void (*run)(const klr_orthogonalize&, void* scratch, int64_t phase, int64_t begin, int64_t end);
};

namespace baseline {
extern const OrthogonalizeTable orthogonalize_table;
}
#ifdef KLR_X86
namespace avx2 {
extern const OrthogonalizeTable orthogonalize_table;
}
namespace avx512 {
extern const OrthogonalizeTable orthogonalize_table;
}
#endif

}  // namespace klr
