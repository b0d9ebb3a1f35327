// The update as an XLA FFI handler on CPU, for TensorFlow's XLA and for JAX: each compiles it against its own
// xla/ffi/api/ffi.h.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "operands.h"
#include "parallel.h"

namespace keras_lrsched {

inline ffi::Error Update(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                         bool stochastic_rounding, ffi::Span<const int64_t> blocks) {
  Operands operands;
  const auto copy = [](void* to, const void* from, size_t bytes) { return std::memcpy(to, from, bytes) == to; };
  const ffi::Error error = ReadOperands(args, rets, name, blocks, copy, &operands);
  if (error.failure()) return error;
  std::vector<klr_tensor>& tensors = operands.tensors;
  const int64_t n = static_cast<int64_t>(tensors.size());
  for (int64_t i = 0; i < n; ++i) {
    tensors[i].learning_rate = operands.rates[3 * i];
    tensors[i].weight_decay = operands.rates[3 * i + 1];
    tensors[i].adapted = operands.rates[3 * i + 2] != 0;
  }
  klr_settings settings = {};
  settings.parameters = operands.parameters;
  std::copy_n(operands.seed, 2, settings.seed);
  settings.stochastic_rounding = stochastic_rounding;

  std::vector<int64_t> first(n + 1);
  klr_plan(tensors.data(), n, first.data());
  std::vector<double> totals;
  if (klr_has_sums(operands.method)) {
    std::vector<int64_t> pieces(n + 1);
    klr_plan_sums(operands.method, tensors.data(), n, pieces.data());
    std::vector<double> sums(2 * pieces.back());
    totals.resize(2 * n);
    ParallelFor(pool, pieces.back(), [&](int64_t begin, int64_t end) {
      klr_sum(operands.method, tensors.data(), n, pieces.data(), &settings, begin, end, sums.data());
    });
    klr_reduce(n, pieces.data(), sums.data(), totals.data());
  }
  ParallelFor(pool, first.back(), [&](int64_t begin, int64_t end) {
    klr_update(operands.method, tensors.data(), n, first.data(), &settings, begin, end,
               totals.empty() ? nullptr : totals.data());
  });
  return ffi::Error::Success();
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_update, keras_lrsched::Update,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("method")
                                  .Attr<bool>("stochastic_rounding")
                                  .Attr<xla::ffi::Span<const int64_t>>("blocks"));
#pragma GCC visibility pop
