// The update of ops/kernels on a CUDA device, with the same formulas.
//
// Everything that changes from step to step lies in device memory: nothing waits for the host.
#pragma once

#include "../ops/kernels/update.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of device memory that `klr_cuda_update` needs to work in.
KLR_API int64_t klr_cuda_workspace(int method, const klr_tensor* tensors, int64_t n);

// Launches the update on a stream.
//
// `tensors` lie in host memory, their pointers are to device memory, 16-byte aligned; their learning_rate, weight_decay and
// adapted are not read: `rates` has them, three floats a tensor. `rates`, `parameters` (see klr_settings) and `seed` (two
// uint32) are in device memory. Returns a cudaError_t: 0 if all was launched.
KLR_API int klr_cuda_update(int method, const klr_tensor* tensors, int64_t n, const float* rates, const float* parameters,
                            const uint32_t* seed, int stochastic_rounding, void* workspace, void* stream);

// A word for an error, and the number of devices: 0 where there is no driver.
KLR_API const char* klr_cuda_error(int error);
KLR_API int klr_cuda_devices(void);

#ifdef __cplusplus
}
#endif
