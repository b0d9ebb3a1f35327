// Optimizer updates of many tensors at once, over raw pointers.
//
// No allocation, no threads, no framework. All tensors together are cut into chunks, whose borders depend on sizes alone; the
// caller spreads chunks over its threads. Every result is the same to the bit for any number of threads and any instruction
// set.
//
// An update has one phase or two. In two phases (`kl_has_sums`), first every piece of `kl_plan_sums` writes two sums, and
// `kl_reduce` adds them up for each tensor, in the order of the pieces; then every chunk is updated. For Adam-mini a piece is
// some of the blocks, and the first phase updates their second moments.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KL_API __attribute__((visibility("default")))

enum { KL_MAX_SLOTS = 2, KL_MAX_PARTS = 4, KL_NUMBERS = 12, KL_CHUNK = 32768, KL_LARGEST_CODE_BLOCK = 4096 };

typedef enum { KL_FLOAT32 = 0, KL_BFLOAT16 = 1, KL_UINT8 = 2 } kl_dtype;

typedef enum { KL_SGD, KL_LION, KL_ADAMW, KL_LARS, KL_LAMB, KL_ADAM_MINI, KL_METHODS } kl_method;

// How state is kept in 8 bits. A slot has several parts: codes, a uint8 for each entry, of which those of the first slot have a
// sign; then, for each block of neighbors, a float32 scale (dynamic_map.h), or a scale and a center in bfloat16 and a uint8
// (range_expansion.h).
typedef enum { KL_NO_CODE, KL_BLOCKWISE8, KL_COAT } kl_code;

// A variable, its gradient and its state, each of `size` entries. The state is float32 in `slots`, or in the `parts` of its
// code.
typedef struct {
  void* w;
  const void* g;
  float* slots[KL_MAX_SLOTS];
  int64_t size;
  int32_t w_dtype;
  int32_t g_dtype;
  float learning_rate;
  float weight_decay;
  int32_t adapted;  // whether a layerwise trust ratio applies
  int32_t index;    // its place among all variables, a part of the random counter
  int64_t blocks;   // Adam-mini: entry i belongs to block (i / inner) % blocks, and the second slot has an entry a block
  int64_t inner;
  void* parts[KL_MAX_SLOTS][KL_MAX_PARTS];  // in place of `slots`, if there is a code
  int64_t code_block;
  int32_t code;
} kl_tensor;

// What all tensors share. `numbers` begins with the scale of the gradients; the rest is the method's, see updates.h.
typedef struct {
  float numbers[KL_NUMBERS];
  uint32_t seed[2];
  int32_t stochastic_rounding;  // of bfloat16 variables
} kl_settings;

// The method of a name such as "lion", or -1.
KL_API int kl_find_method(const char* name);
KL_API int kl_slots(int method);
KL_API int kl_has_sums(int method);
// Whether the state may be in a code, in blocks of that many neighbors.
KL_API int kl_takes_code(int method, int64_t code, int64_t code_block);
// How many parts a slot has; 1 without a code.
KL_API int kl_parts(int64_t code);
KL_API int kl_part_dtype(int64_t code, int part);
// The instruction set in use: "avx512", "avx2" or "baseline".
KL_API const char* kl_instruction_set(void);

// Whether `blocks` and `inner` are those of a tensor of its size.
KL_API int kl_valid_blocks(const kl_tensor* tensor);

// Fills `first_chunks` (n + 1 numbers): the chunks of tensor t are first_chunks[t] ... first_chunks[t + 1] - 1.
KL_API void kl_plan(const kl_tensor* tensors, int64_t n, int64_t* first_chunks);

// The same for the pieces of the first phase.
KL_API void kl_plan_sums(int method, const kl_tensor* tensors, int64_t n, int64_t* first_pieces);

// The first phase, for pieces begin ... end - 1: writes sums[2 k] and sums[2 k + 1] of piece k.
KL_API void kl_sum(int method, const kl_tensor* tensors, int64_t n, const int64_t* first_pieces, const kl_settings* settings,
                   int64_t begin, int64_t end, double* sums);
// Adds up the sums of each tensor: totals[2 t] and totals[2 t + 1].
KL_API void kl_reduce(int64_t n, const int64_t* first_pieces, const double* sums, double* totals);
// The last phase. `totals` may be null for a method without sums.
KL_API void kl_update(int method, const kl_tensor* tensors, int64_t n, const int64_t* first_chunks, const kl_settings* settings,
                      int64_t begin, int64_t end, const double* totals);

#ifdef __cplusplus
}
#endif
