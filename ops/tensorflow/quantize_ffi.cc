// Registers with TensorFlow's XLA the handlers.
#include "../xla/quantize_ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // of libtensorflow_framework

XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_quantize", "Host", keras_lrsched_quantize);
XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_fake_quantize", "Host", keras_lrsched_fake_quantize);
XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_dequantize", "Host", keras_lrsched_dequantize);
