// Quantization as XLA FFI handlers on CUDA.
#pragma once

#include <string>

#include "../ops/xla/quantize_operands.h"
#include "quantize.h"

namespace keras_lrsched {

inline ffi::Error Launched(int status) {
  if (status == 0) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("keras_lrsched_quantize: ") + klr_cuda_quantize_error(status));
}

// Memory to work in, which may be none.
inline ffi::Error Allocate(ffi::ScratchAllocator& scratch, const klr_quantizer& quantizer, void** workspace) {
  *workspace = nullptr;
  const int64_t bytes = klr_cuda_quantize_workspace(&quantizer);
  if (bytes == 0) return ffi::Error::Success();
  const auto allocated = scratch.Allocate(bytes);
  if (!allocated.has_value()) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "keras_lrsched_quantize: no memory");
  *workspace = *allocated;
  return ffi::Error::Success();
}

inline ffi::Error CheckOperands(const ffi::Buffer<ffi::S32>& seed, const ffi::Buffer<ffi::F32>& signs) {
  if (seed.element_count() != 2) return ffi::Error::InvalidArgument("keras_lrsched_quantize: the seed must be two numbers");
  if (signs.element_count() == 0) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kUnimplemented, "keras_lrsched_quantize: there are no Hadamard transforms on CUDA");
}

inline ffi::Error QuantizeOnCuda(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer x, ffi::Buffer<ffi::S32> seed,
                                 ffi::Buffer<ffi::F32> signs, ffi::Result<ffi::Buffer<ffi::U8>> codes,
                                 ffi::Result<ffi::AnyBuffer> scales, ffi::Result<ffi::Buffer<ffi::F32>> tensor_scale,
                                 ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  void* workspace;
  if (ffi::Error error = Describe(numbers, x, &quantizer); error.failure()) return error;
  if (ffi::Error error = Check(quantizer, codes->size_bytes(), scales->size_bytes()); error.failure()) return error;
  if (ffi::Error error = CheckOperands(seed, signs); error.failure()) return error;
  if (ffi::Error error = Allocate(scratch, quantizer, &workspace); error.failure()) return error;
  return Launched(klr_cuda_quantize(&quantizer, x.untyped_data(), reinterpret_cast<const uint32_t*>(seed.typed_data()),
                                    workspace, codes->typed_data(), scales->untyped_data(), tensor_scale->typed_data(),
                                    stream));
}

inline ffi::Error FakeQuantizeOnCuda(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer x, ffi::Buffer<ffi::S32> seed,
                                     ffi::Buffer<ffi::F32> signs, ffi::Result<ffi::AnyBuffer> y,
                                     ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  void* workspace;
  if (ffi::Error error = Describe(numbers, x, &quantizer); error.failure()) return error;
  if (y->size_bytes() != x.size_bytes()) return ffi::Error::InvalidArgument("keras_lrsched_fake_quantize: a wrong result");
  if (ffi::Error error = CheckOperands(seed, signs); error.failure()) return error;
  if (ffi::Error error = Allocate(scratch, quantizer, &workspace); error.failure()) return error;
  return Launched(klr_cuda_fake_quantize(&quantizer, x.untyped_data(), reinterpret_cast<const uint32_t*>(seed.typed_data()),
                                         workspace, y->untyped_data(), stream));
}

inline ffi::Error DequantizeOnCuda(void* stream, ffi::Buffer<ffi::U8> codes, ffi::AnyBuffer scales,
                                   ffi::Buffer<ffi::F32> tensor_scale, ffi::Result<ffi::AnyBuffer> y,
                                   ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  if (ffi::Error error = Describe(numbers, *y, &quantizer); error.failure()) return error;
  if (ffi::Error error = Check(quantizer, codes.size_bytes(), scales.size_bytes()); error.failure()) return error;
  if (quantizer.dtype != KLR_X_FLOAT32) return ffi::Error::InvalidArgument("keras_lrsched_dequantize: a wrong result");
  return Launched(klr_cuda_dequantize(&quantizer, codes.typed_data(), scales.untyped_data(), tensor_scale.typed_data(),
                                      y->untyped_data(), stream));
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_quantize_cuda, keras_lrsched::QuantizeOnCuda,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<void*>>()
                                  .Ctx<xla::ffi::ScratchAllocator>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::U8>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_fake_quantize_cuda, keras_lrsched::FakeQuantizeOnCuda,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<void*>>()
                                  .Ctx<xla::ffi::ScratchAllocator>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_dequantize_cuda, keras_lrsched::DequantizeOnCuda,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<void*>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::U8>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
#pragma GCC visibility pop
