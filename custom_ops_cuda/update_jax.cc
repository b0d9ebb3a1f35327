// Exports the handler, which Python hands to `jax.ffi.register_ffi_target`.
#include "update_ffi.h"
