// Exports the symbol `keras_lrsched_orthogonalize`, which Python hands to `jax.ffi.register_ffi_target`.
#include "../xla/orthogonalize_ffi.h"
