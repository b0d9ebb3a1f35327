// KL_BOTH marks what CUDA compiles for the host and for the device.
#pragma once

#ifdef __CUDACC__
#define KL_BOTH __host__ __device__
#else
#define KL_BOTH
#endif
