// Quantization as XLA FFI handlers on CPU, for TensorFlow's XLA and for JAX: each compiles them against its own
// xla/ffi/api/ffi.h.
#pragma once

#include <vector>

#include "parallel.h"
#include "quantize_operands.h"

namespace keras_lrsched {

// {factor, scale} of the tensor, for formats that have them.
inline void FitTensor(ffi::ThreadPool& pool, const klr_quantizer& quantizer, const void* x, float tensor[2]) {
  if (klr_quantize_phases(&quantizer) == 1) return;
  std::vector<uint32_t> amax(klr_quantize_chunks(&quantizer));
  ParallelFor(pool, static_cast<int64_t>(amax.size()),
              [&](int64_t begin, int64_t end) { klr_quantize_amax(&quantizer, x, begin, end, amax.data()); });
  klr_quantize_fit(&quantizer, amax.data(), tensor);
}

// What is read in every call: the seed, and the signs of a Hadamard transform, none where there is none.
inline ffi::Error Complete(const ffi::Buffer<ffi::S32>& seed, const ffi::Buffer<ffi::F32>& signs, klr_quantizer* quantizer) {
  if (seed.element_count() != 2) return ffi::Error::InvalidArgument("keras_lrsched_quantize: the seed must be two numbers");
  for (int i = 0; i < 2; ++i) quantizer->seed[i] = static_cast<uint32_t>(seed.typed_data()[i]);
  quantizer->hadamard = static_cast<int32_t>(signs.element_count()), quantizer->signs = signs.typed_data();
  return klr_quantize_valid(quantizer) ? ffi::Error::Success()
                                       : ffi::Error::InvalidArgument("keras_lrsched_quantize: there is no such transform");
}

inline ffi::Error Quantize(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::S32> seed, ffi::Buffer<ffi::F32> signs,
                           ffi::Result<ffi::Buffer<ffi::U8>> codes, ffi::Result<ffi::AnyBuffer> scales,
                           ffi::Result<ffi::Buffer<ffi::F32>> tensor_scale, ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  if (ffi::Error error = Describe(numbers, x, &quantizer); error.failure()) return error;
  if (ffi::Error error = Check(quantizer, codes->size_bytes(), scales->size_bytes()); error.failure()) return error;
  if (ffi::Error error = Complete(seed, signs, &quantizer); error.failure()) return error;
  float tensor[2] = {1, 1};
  FitTensor(pool, quantizer, x.untyped_data(), tensor);
  tensor_scale->typed_data()[0] = tensor[1];
  ParallelFor(pool, klr_quantize_chunks(&quantizer), [&](int64_t begin, int64_t end) {
    klr_quantize(&quantizer, x.untyped_data(), tensor, begin, end, codes->typed_data(), scales->untyped_data());
  });
  return ffi::Error::Success();
}

inline ffi::Error FakeQuantize(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::S32> seed, ffi::Buffer<ffi::F32> signs,
                               ffi::Result<ffi::AnyBuffer> y, ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  if (ffi::Error error = Describe(numbers, x, &quantizer); error.failure()) return error;
  if (y->size_bytes() != x.size_bytes()) return ffi::Error::InvalidArgument("keras_lrsched_fake_quantize: a wrong result");
  if (ffi::Error error = Complete(seed, signs, &quantizer); error.failure()) return error;
  float tensor[2] = {1, 1};
  FitTensor(pool, quantizer, x.untyped_data(), tensor);
  ParallelFor(pool, klr_quantize_chunks(&quantizer), [&](int64_t begin, int64_t end) {
    klr_fake_quantize(&quantizer, x.untyped_data(), tensor, begin, end, y->untyped_data());
  });
  return ffi::Error::Success();
}

inline ffi::Error Dequantize(ffi::ThreadPool pool, ffi::Buffer<ffi::U8> codes, ffi::AnyBuffer scales,
                             ffi::Buffer<ffi::F32> tensor_scale, ffi::Result<ffi::AnyBuffer> y,
                             ffi::Span<const int64_t> numbers) {
  klr_quantizer quantizer;
  if (ffi::Error error = Describe(numbers, *y, &quantizer); error.failure()) return error;
  if (ffi::Error error = Check(quantizer, codes.size_bytes(), scales.size_bytes()); error.failure()) return error;
  if (quantizer.dtype != KLR_X_FLOAT32) return ffi::Error::InvalidArgument("keras_lrsched_dequantize: a wrong result");
  ParallelFor(pool, klr_quantize_chunks(&quantizer), [&](int64_t begin, int64_t end) {
    klr_dequantize(&quantizer, codes.typed_data(), scales.untyped_data(), tensor_scale.typed_data(), begin, end,
                   y->untyped_data());
  });
  return ffi::Error::Success();
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_quantize, keras_lrsched::Quantize,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::U8>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_fake_quantize, keras_lrsched::FakeQuantize,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_dequantize, keras_lrsched::Dequantize,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::U8>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("numbers"));
#pragma GCC visibility pop
