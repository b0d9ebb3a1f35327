// Tensors in low-precision formats, over raw pointers: quantize, dequantize, and both in one pass.
//
// No allocation, no threads, no framework. A tensor is cut into chunks, whose borders depend on sizes alone; the caller spreads
// chunks over its threads. Every result is the same to the bit for any number of threads and any instruction set, and the same
// as that of keras_lrsched/precision.
//
// A Hadamard transform before quantization is part of the same pass; nothing undoes it on the way back.
//
// Formats with a number for the whole tensor (`klr_quantize_phases` is 2) need its largest magnitude first: every chunk writes
// one by `klr_quantize_amax`, and `klr_quantize_fit` makes the numbers of the tensor of them.
#pragma once

#include <stdint.h>

#include "quantize_lists.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef KLR_API
#define KLR_API __attribute__((visibility("default")))
#endif

typedef enum { KLR_X_FLOAT32 = 0, KLR_X_BFLOAT16 = 1 } klr_x_dtype;

#define KLR_CONSTANT(ID, ...) KLR_##ID,
typedef enum { KLR_QUANTIZER_ELEMENTS(KLR_CONSTANT) KLR_ELEMENTS } klr_element;
typedef enum { KLR_QUANTIZER_SCALE_RULES(KLR_CONSTANT) KLR_SCALE_RULES } klr_scale_rule;
#undef KLR_CONSTANT

enum { KLR_LARGEST_BLOCK = 16384 };  // entries, of blocks that are neither a whole axis nor the whole tensor

// A tensor x[outer][columns][inner], quantized along `columns`. Its rows are numbered (o, i); where a block has several rows,
// every `rows` of them are cut into blocks on their own.
typedef struct {
  int64_t outer, columns, inner;
  int64_t rows;           // matters if block_rows > 1; 0: all (o, or i if inner > 1)
  int64_t block_rows;     // 0: one block for the tensor
  int64_t block_columns;  // 0: the whole axis
  int32_t element;
  int32_t rule;
  int32_t stochastic;  // rounding
  int32_t dtype;       // of the numbers on both sides; a klr_x_dtype
  uint32_t seed[2];
  int32_t hadamard;  // 16, 32 or 128: what goes through a Hadamard transform of so many entries along `columns` first; 0: none
  const float* signs;  // of these entries: 1 or -1
} klr_quantizer;

// What is stored: rows and bytes a row of codes, rows and columns of scales. A scale has 4 bytes or 1.
typedef struct {
  int64_t code_rows, code_bytes, scale_rows, scale_columns, scale_bytes;
} klr_stored;

// Whether there is a kernel, and the sizes fit together.
KLR_API int klr_quantize_valid(const klr_quantizer* quantizer);
KLR_API void klr_quantize_stored(const klr_quantizer* quantizer, klr_stored* stored);
// The instruction set in use: "avx512", "avx2" or "baseline".
KLR_API const char* klr_quantize_instruction_set(void);

KLR_API int klr_quantize_phases(const klr_quantizer* quantizer);
KLR_API int64_t klr_quantize_chunks(const klr_quantizer* quantizer);

// The first phase, for chunks begin ... end - 1: amax[k] are the bits of the largest magnitude of chunk k.
KLR_API void klr_quantize_amax(const klr_quantizer* quantizer, const void* x, int64_t begin, int64_t end, uint32_t* amax);
// Of all chunks -> {factor on the way in, scale} of the tensor.
KLR_API void klr_quantize_fit(const klr_quantizer* quantizer, const uint32_t* amax, float tensor[2]);

// The last phase. `tensor` may be null for formats of one phase. Codes are packed, the quantized axis last, and filled with
// zeros up to whole blocks; scales are bytes or float32.
KLR_API void klr_quantize(const klr_quantizer* quantizer, const void* x, const float* tensor, int64_t begin, int64_t end,
                          uint8_t* codes, void* scales);
// The same, but to the numbers that the codes stand for.
KLR_API void klr_fake_quantize(const klr_quantizer* quantizer, const void* x, const float* tensor, int64_t begin, int64_t end,
                               void* y);
// `tensor_scale` may be null for formats other than NVFP4.
KLR_API void klr_dequantize(const klr_quantizer* quantizer, const uint8_t* codes, const void* scales, const float* tensor_scale,
                            int64_t begin, int64_t end, void* y);

#ifdef __cplusplus
}
#endif
