// KLR_BOTH marks what CUDA compiles for the host and for the device.
#pragma once

#ifdef __CUDACC__
#define KLR_BOTH __host__ __device__
#else
#define KLR_BOTH
#endif

// In a loop over entries: a call in it would keep compilers from making vectors of the rest.
#define KLR_INLINE KLR_BOTH __attribute__((always_inline)) inline
