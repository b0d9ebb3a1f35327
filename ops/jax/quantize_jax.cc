// Exports the handlers, which Python hands to `jax.ffi.register_ffi_target`.
#include "../xla/quantize_ffi.h"
