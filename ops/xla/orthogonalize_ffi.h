// Newton-Schulz iterations of several matrices as an XLA FFI handler on CPU, for TensorFlow's XLA and for JAX: each compiles it
// against its own xla/ffi/api/ffi.h.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/orthogonalize.h"
#include "parallel.h"

namespace keras_lrsched {

// In: n matrices, each tensor one or several along its first axes, a, b, c of each step, factor and summand of the norm. Out:
// as many matrices.
inline ffi::Error Orthogonalize(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const auto wrong = [](const char* what) {
    return ffi::Error::InvalidArgument(std::string("keras_lrsched_orthogonalize: ") + what);
  };
  const size_t n = rets.size();
  if (args.size() != n + 2) return wrong("wrong number of operands");
  for (size_t i = 0; i < n + 2; ++i) {
    if (args.get<ffi::AnyBuffer>(i)->element_type() != ffi::F32) return wrong("all operands must be float32");
  }
  const ffi::AnyBuffer coefficients = args.get<ffi::AnyBuffer>(n).value(), bounds = args.get<ffi::AnyBuffer>(n + 1).value();
  if (coefficients.element_count() % 3 != 0 || bounds.element_count() != 2) {
    return wrong("there must be 3 coefficients a step and 2 bounds");
  }
  std::vector<klr_matrix> matrices;
  for (size_t i = 0; i < n; ++i) {
    const ffi::AnyBuffer from = args.get<ffi::AnyBuffer>(i).value();
    const ffi::AnyBuffer to = **rets.get<ffi::AnyBuffer>(i);
    const size_t rank = from.dimensions().size(), count = from.element_count();
    if (rank < 2 || to.element_type() != ffi::F32 || to.element_count() != count) return wrong("matrices do not fit");
    const int64_t rows = from.dimensions()[rank - 2], columns = from.dimensions()[rank - 1];
    for (size_t begin = 0; begin < count; begin += static_cast<size_t>(rows * columns)) {
      matrices.push_back({from.typed_data<float>() + begin, to.typed_data<float>() + begin, rows, columns});
    }
  }
  const klr_orthogonalize all = {matrices.data(),
                                 static_cast<int64_t>(matrices.size()),
                                 coefficients.typed_data<float>(),
                                 static_cast<int64_t>(coefficients.element_count()) / 3,
                                 bounds.typed_data<float>()[0],
                                 bounds.typed_data<float>()[1],
                                 pool.num_threads()};
  if (const char* error = klr_orthogonalize_error(&all)) return wrong(error);

  const size_t bytes = (static_cast<size_t>(klr_orthogonalize_scratch(&all)) / 64 + 1) * 64;  // not nothing
  const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, bytes), std::free);
  if (scratch == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "keras_lrsched_orthogonalize: no memory is left");
  }
  for (int64_t phase = 0; phase < klr_orthogonalize_phases(&all); ++phase) {
    ParallelFor(pool, klr_orthogonalize_pieces(&all, phase),
                [&](int64_t begin, int64_t end) { klr_orthogonalize_run(&all, scratch.get(), phase, begin, end); });
  }
  return ffi::Error::Success();
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_orthogonalize, keras_lrsched::Orthogonalize,
                              xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets());
#pragma GCC visibility pop
