// The quantization of ops/kernels on a CUDA device, with the same formulas and the same bits, except for which NaN a NaN is.
//
// Everything that changes from call to call lies in device memory: nothing waits for the host. Functions return a cudaError_t:
// 0 if all was launched. Quantizers must be valid; the seed in them is not read.
#pragma once

#include "../ops/kernels/quantize.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of device memory that `klr_cuda_quantize` and `klr_cuda_fake_quantize` need to work in; the address must be a multiple
// of 4.
KLR_API int64_t klr_cuda_quantize_workspace(const klr_quantizer* quantizer);

// The bits of the largest magnitude of a tensor; in NVFP4, of its blocks without NaN and infinity.
KLR_API int klr_cuda_quantize_amax(const klr_quantizer* quantizer, const void* x, uint32_t* amax, void* stream);

// `seed`: two numbers, read for stochastic rounding. `tensor_scale` becomes 1 in formats other than NVFP4.
KLR_API int klr_cuda_quantize(const klr_quantizer* quantizer, const void* x, const uint32_t* seed, void* workspace,
                              uint8_t* codes, void* scales, float* tensor_scale, void* stream);
KLR_API int klr_cuda_fake_quantize(const klr_quantizer* quantizer, const void* x, const uint32_t* seed, void* workspace,
                                   void* y, void* stream);
// `tensor_scale` may be null for formats other than NVFP4.
KLR_API int klr_cuda_dequantize(const klr_quantizer* quantizer, const uint8_t* codes, const void* scales,
                                const float* tensor_scale, void* y, void* stream);

// A word for an error, and the number of devices: 0 where there is no driver.
KLR_API const char* klr_cuda_quantize_error(int error);
KLR_API int klr_cuda_quantize_devices(void);

#ifdef __cplusplus
}
#endif
