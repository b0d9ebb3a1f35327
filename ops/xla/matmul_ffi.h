// The product of two int8 matrices as an XLA FFI handler on CPU, for TensorFlow's XLA and for JAX: each compiles it against its
// own xla/ffi/api/ffi.h.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "../kernels/matmul.h"
#include "parallel.h"

namespace keras_lrsched {

inline ffi::Error Matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> a, ffi::Buffer<ffi::S8> b, ffi::Buffer<ffi::F32> a_scales,
                         ffi::Buffer<ffi::F32> b_scales, ffi::Result<ffi::AnyBuffer> c, bool transpose_a, bool transpose_b,
                         std::string_view output) {
  const auto wrong = [](const char* what) { return ffi::Error::InvalidArgument(std::string("keras_lrsched_matmul: ") + what); };
  if (a.dimensions().size() != 2 || b.dimensions().size() != 2) return wrong("both operands must be matrices");
  klr_matmul product = {};
  product.m = a.dimensions()[transpose_a ? 1 : 0], product.k = a.dimensions()[transpose_a ? 0 : 1];
  product.n = b.dimensions()[transpose_b ? 0 : 1];
  if (b.dimensions()[transpose_b ? 1 : 0] != product.k) return wrong("the matrices do not fit");
  product.a = a.typed_data(), product.b = b.typed_data(), product.c = c->untyped_data();
  product.a_scales = a_scales.typed_data(), product.a_scales_size = static_cast<int64_t>(a_scales.element_count());
  product.b_scales = b_scales.typed_data(), product.b_scales_size = static_cast<int64_t>(b_scales.element_count());
  product.transpose_a = transpose_a, product.transpose_b = transpose_b;
  product.output = output == "int32" ? KLR_MATMUL_INT32 : output == "scaled" ? KLR_MATMUL_SCALED : KLR_MATMUL_BLOCKS;
  product.instruction_set = -1;
  if (c->element_type() != (product.output == KLR_MATMUL_INT32 ? ffi::S32 : ffi::F32) ||
      c->element_count() != static_cast<size_t>(product.m * product.n)) {
    return wrong("the result has a wrong type or shape");
  }
  if (const char* error = klr_matmul_error(&product)) return wrong(error);

  const size_t bytes = static_cast<size_t>(klr_matmul_scratch(&product)) + 64;  // a multiple of 64, and not nothing
  const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, bytes), std::free);
  if (scratch == nullptr) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "keras_lrsched_matmul: no memory is left");
  ParallelFor(pool, klr_matmul_pieces(&product),
              [&](int64_t begin, int64_t end) { klr_matmul_pack(&product, scratch.get(), begin, end); });
  ParallelFor(pool, klr_matmul_tiles(&product),
              [&](int64_t begin, int64_t end) { klr_matmul_compute(&product, scratch.get(), begin, end); });
  return ffi::Error::Success();
}

}  // namespace keras_lrsched

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(keras_lrsched_matmul, keras_lrsched::Matmul,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S8>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S8>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<bool>("transpose_a")
                                  .Attr<bool>("transpose_b")
                                  .Attr<std::string_view>("output"));
#pragma GCC visibility pop
