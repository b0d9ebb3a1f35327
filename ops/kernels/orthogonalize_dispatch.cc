// The C interface of the orthogonalization of matrices: what may be asked for, which instruction set.
#include <algorithm>

#include "orthogonalize.h"
#include "orthogonalize_table.h"

namespace {

struct InstructionSet {
  const char* name;
  const klr::OrthogonalizeTable* table;
};

InstructionSet choose() {
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) {
    return {"avx512", &klr::avx512::orthogonalize_table};
  }
#endif
#if defined(KLR_X86) && !defined(KLR_WITHOUT_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"avx2", &klr::avx2::orthogonalize_table};
#endif
  return {"baseline", &klr::baseline::orthogonalize_table};
}

const InstructionSet& in_use() {
  static const InstructionSet chosen = choose();
  return chosen;
}

}  // namespace

const char* klr_orthogonalize_error(const klr_orthogonalize* it) {
  for (int64_t i = 0; i < it->count; ++i) {
    if (it->matrices[i].rows < 0 || it->matrices[i].columns < 0) return "sizes must not be negative";
  }
  return it->steps < 0 ? "the number of steps must not be negative" : nullptr;
}

int64_t klr_orthogonalize_scratch(const klr_orthogonalize* it) { return in_use().table->scratch(*it); }

int64_t klr_orthogonalize_phases(const klr_orthogonalize* it) { return in_use().table->phases(*it); }

int64_t klr_orthogonalize_pieces(const klr_orthogonalize* it, int64_t phase) { return in_use().table->pieces(*it, phase); }

void klr_orthogonalize_run(const klr_orthogonalize* it, void* scratch, int64_t phase, int64_t begin, int64_t end) {
  in_use().table->run(*it, scratch, phase, begin, end);
}

int64_t klr_orthogonalize_cost(const klr_orthogonalize* it, int64_t phase) {
  double operations = 0;
  for (int64_t i = 0; i < it->count; ++i) {
    const double s = std::min(it->matrices[i].rows, it->matrices[i].columns);
    const double l = std::max(it->matrices[i].rows, it->matrices[i].columns);
    operations += (3 * s * s * l + s * s * s) * it->steps + 4 * s * l;
  }
  const int64_t pieces = klr_orthogonalize_pieces(it, phase), phases = klr_orthogonalize_phases(it);
  return pieces == 0 ? 1 : static_cast<int64_t>(operations / pieces / phases) + 1;
}

const char* klr_orthogonalize_instruction_set(void) { return in_use().name; }
