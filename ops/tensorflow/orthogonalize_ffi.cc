// Registers with TensorFlow's XLA the handler.
#include "../xla/orthogonalize_ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // of libtensorflow_framework

XLA_FFI_REGISTER_HANDLER(XLA_FFI_GetApi(), "keras_lrsched_orthogonalize", "Host", keras_lrsched_orthogonalize);
