// Exports the symbol `keras_lrsched_matmul`, which Python hands to `jax.ffi.register_ffi_target`.
#include "../xla/matmul_ffi.h"
