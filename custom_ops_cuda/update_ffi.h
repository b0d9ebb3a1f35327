// The update as an XLA FFI handler on CUDA. XLA lets results share the buffers of operands, so that nothing is copied.
#pragma once

#include <string>
#include <string_view>

#include "../ops/xla/operands.h"
#include "update.h"

namespace keras_lrsched {

inline ffi::Error UpdateOnCuda(void* stream, ffi::ScratchAllocator scratch, ffi::RemainingArgs args, ffi::RemainingRets rets,
                               std::string_view name, bool stochastic_rounding, ffi::Span<const int64_t> blocks) {
  Operands operands;
  const auto no_copy = [](void*, const void*, size_t) { return false; };
  const ffi::Error error = ReadOperands(args, rets, name, blocks, no_copy, &operands);
  if (error.failure()) return error;
  for (const klr_tensor& tensor : operands.tensors) {
    if (tensor.code != KLR_NO_CODE) {
      return ffi::Error(ffi::ErrorCode::kUnimplemented, "keras_lrsched_update: state in codes has no kernel on CUDA");
    }
  }
  const int64_t n = static_cast<int64_t>(operands.tensors.size());
  void* workspace = nullptr;
  if (const int64_t bytes = klr_cuda_workspace(operands.method, operands.tensors.data(), n)) {
    const auto allocated = scratch.Allocate(bytes);
    if (!allocated.has_value()) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "keras_lrsched_update: no memory");
    workspace = *allocated;
  }
  const int status = klr_cuda_update(operands.method, operands.tensors.data(), n, operands.rates, operands.parameters,
                                     operands.seed, stochastic_rounding, workspace, stream);
  if (status != 0) return ffi::Error::Internal(std::string("keras_lrsched_update: ") + klr_cuda_error(status));
  return ffi::Error::Success();
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_update_cuda, keras_lrsched::UpdateOnCuda,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<void*>>()
                                  .Ctx<xla::ffi::ScratchAllocator>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("method")
                                  .Attr<bool>("stochastic_rounding")
                                  .Attr<xla::ffi::Span<const int64_t>>("blocks"));
#pragma GCC visibility pop
