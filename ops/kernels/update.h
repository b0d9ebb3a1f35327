// Optimizer updates of many tensors at once, over raw pointers.
//
// No allocation, no threads, no framework. All tensors together are cut into chunks, whose borders depend on sizes alone; the
// caller spreads chunks over its threads. Every result is the same to the bit for any number of threads and any instruction
// set.
//
// An update has one phase or two. In two phases (`klr_has_sums`), first every piece of `klr_plan_sums` writes two sums, and
// `klr_reduce` adds them up for each tensor, in the order of the pieces; then every chunk is updated. For Adam-mini a piece is
// some of the blocks, and the first phase updates their second moments.
#pragma once

#include <stdint.h>

#include "update_rules.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KLR_API __attribute__((visibility("default")))

enum { KLR_MAX_SLOTS = 2, KLR_MAX_PARTS = 4, KLR_CHUNK = 32768, KLR_LARGEST_CODE_BLOCK = 4096 };

typedef enum { KLR_FLOAT32 = 0, KLR_BFLOAT16 = 1, KLR_UINT8 = 2 } klr_dtype;

#define KLR_METHOD(ID, ...) KLR_##ID,
typedef enum { KLR_UPDATE_RULES(KLR_METHOD) KLR_METHODS } klr_method;
#undef KLR_METHOD

#define KLR_CODE(ID, name) , KLR_##ID
typedef enum { KLR_NO_CODE KLR_STATE_CODES(KLR_CODE), KLR_CODES } klr_code;
#undef KLR_CODE

// A variable, its gradient and its state, each of `size` entries. The state is float32 in `slots`, or in the `parts` of its
// code.
typedef struct {
  void* w;
  const void* g;
  float* slots[KLR_MAX_SLOTS];
  int64_t size;
  int32_t w_dtype;
  int32_t g_dtype;
  float learning_rate;
  float weight_decay;
  int32_t adapted;  // whether a layerwise trust ratio applies
  int32_t index;    // its place among all variables, a part of the random counter
  int64_t blocks;   // Adam-mini: entry i belongs to block (i / inner) % blocks, and the second slot has an entry a block
  int64_t inner;
  void* parts[KLR_MAX_SLOTS][KLR_MAX_PARTS];  // in place of `slots`, if there is a code
  int64_t code_block;
  int32_t code;
} klr_tensor;

// What all tensors share. `parameters` are the gradient scale and those of the method in update_rules.h.
typedef struct {
  const float* parameters;
  uint32_t seed[2];
  int32_t stochastic_rounding;  // of bfloat16 variables
} klr_settings;

// The method of a name such as "lion", or -1.
KLR_API int klr_find_method(const char* name);
KLR_API const char* klr_method_name(int method);
// The names of its parameters, separated by ", ", and how many there are.
KLR_API const char* klr_parameter_names(int method);
KLR_API int klr_parameter_count(int method);
KLR_API int klr_slots(int method);
KLR_API int klr_has_sums(int method);
// Whether the second slot has a number a block, see klr_tensor. Not for a method of -1.
KLR_API int klr_in_blocks(int method);
// Whether the state may be in a code, in blocks of that many neighbors.
KLR_API int klr_takes_code(int method, int64_t code, int64_t code_block);
// How many parts a slot has; 1 without a code.
KLR_API int klr_parts(int64_t code);
KLR_API int klr_part_dtype(int64_t code, int part);
// The instruction set in use: "avx512", "avx2" or "baseline".
KLR_API const char* klr_instruction_set(void);

// Whether `blocks` and `inner` are those of a tensor of its size.
KLR_API int klr_valid_blocks(const klr_tensor* tensor);

// Fills `first_chunks` (n + 1 numbers): the chunks of tensor t are first_chunks[t] ... first_chunks[t + 1] - 1.
KLR_API void klr_plan(const klr_tensor* tensors, int64_t n, int64_t* first_chunks);

// The same for the pieces of the first phase.
KLR_API void klr_plan_sums(int method, const klr_tensor* tensors, int64_t n, int64_t* first_pieces);

// The first phase, for pieces begin ... end - 1: writes sums[2 k] and sums[2 k + 1] of piece k.
KLR_API void klr_sum(int method, const klr_tensor* tensors, int64_t n, const int64_t* first_pieces,
                     const klr_settings* settings, int64_t begin, int64_t end, double* sums);
// Adds up the sums of each tensor: totals[2 t] and totals[2 t + 1].
KLR_API void klr_reduce(int64_t n, const int64_t* first_pieces, const double* sums, double* totals);
// The last phase. `totals` may be null for a method without sums.
KLR_API void klr_update(int method, const klr_tensor* tensors, int64_t n, const int64_t* first_chunks,
                        const klr_settings* settings, int64_t begin, int64_t end, const double* totals);

#ifdef __cplusplus
}
#endif
