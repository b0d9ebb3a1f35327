// KL_BOTH marks what CUDA compiles for the host and for the device.
#pragma once

#ifdef __CUDACC__
#define KL_BOTH __host__ __device__
#else
#define KL_BOTH
#endif

// In a loop over entries: a call in it would keep compilers from making vectors of the rest.
#define KL_INLINE KL_BOTH __attribute__((always_inline)) inline
