// Exports the handlers, which Python hands to `jax.ffi.register_ffi_target`.
#include "quantize_ffi.h"
