// The operands of quantization in XLA, in the memory of a host or of a device.
#pragma once

#include "../kernels/quantize.h"
#include "xla/ffi/api/ffi.h"

namespace keras_lrsched {

namespace ffi = xla::ffi;

// `numbers` are those of a klr_quantizer after its shape: rows, block_rows, block_columns, element, rule, stochastic.
inline ffi::Error Describe(ffi::Span<const int64_t> numbers, const ffi::AnyBuffer& x, klr_quantizer* quantizer) {
  const auto shape = x.dimensions();
  if (shape.size() != 3 || numbers.size() != 6) {
    return ffi::Error::InvalidArgument("keras_lrsched_quantize: there must be three axes and six numbers");
  }
  if (x.element_type() != ffi::F32 && x.element_type() != ffi::BF16) {
    return ffi::Error::InvalidArgument("keras_lrsched_quantize: x must be float32 or bfloat16");
  }
  *quantizer = {};
  quantizer->outer = shape[0], quantizer->columns = shape[1], quantizer->inner = shape[2];
  quantizer->rows = numbers[0], quantizer->block_rows = numbers[1], quantizer->block_columns = numbers[2];
  quantizer->element = static_cast<int32_t>(numbers[3]), quantizer->rule = static_cast<int32_t>(numbers[4]);
  quantizer->stochastic = static_cast<int32_t>(numbers[5]);
  quantizer->dtype = x.element_type() == ffi::BF16 ? KLR_X_BFLOAT16 : KLR_X_FLOAT32;
  return klr_quantize_valid(quantizer) ? ffi::Error::Success()
                                       : ffi::Error::InvalidArgument("keras_lrsched_quantize: there is no such quantization");
}

// Whether codes and scales have the sizes that they must have.
inline ffi::Error Check(const klr_quantizer& quantizer, size_t code_bytes, size_t scale_bytes) {
  klr_stored stored;
  klr_quantize_stored(&quantizer, &stored);
  return code_bytes == static_cast<size_t>(stored.code_rows * stored.code_bytes) &&
                 scale_bytes == static_cast<size_t>(stored.scale_rows * stored.scale_columns * stored.scale_bytes)
             ? ffi::Error::Success()
             : ffi::Error::InvalidArgument("keras_lrsched_quantize: codes or scales have a wrong size");
}

}  // namespace keras_lrsched
