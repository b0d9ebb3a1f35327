// Exports the symbol `keras_lrsched_update`, which Python hands to `jax.ffi.register_ffi_target`.
#include "../xla/update_ffi.h"
