// Registers with TensorFlow's XLA the handlers on CUDA.
#include "quantize_ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // of libtensorflow_framework

XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_quantize", "CUDA", keras_lrsched_quantize_cuda);
XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_fake_quantize", "CUDA", keras_lrsched_fake_quantize_cuda);
XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_dequantize", "CUDA", keras_lrsched_dequantize_cuda);
