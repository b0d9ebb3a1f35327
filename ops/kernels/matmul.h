// Products of int8 matrices, over raw pointers: C = A B, A of m rows and k columns, B of k rows and n columns.
//
// No allocation, no threads, no framework. First every piece of `klr_matmul_pieces` is packed into scratch memory, then every
// tile of `klr_matmul_tiles` is computed from it. Borders of pieces and tiles depend on sizes alone; the caller spreads them
// over its threads. Sums are exact integers, for all of -128 ... 127 in A and B; every result is the same to the bit for any
// number of threads and any instruction set.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KLR_API __attribute__((visibility("default")))

enum {
  KLR_MATMUL_BLOCK = 32,       // rows and columns that share a scale in KLR_MATMUL_BLOCKS
  KLR_MATMUL_MAX_K = 131071,   // more could overflow 32 bits: 2^17 (-128) (-128) = 2^31
  KLR_MATMUL_TILE_ROWS = 128,  // of C
  KLR_MATMUL_TILE_COLUMNS = 256,
};

// What C is. With s the exact sum over k as an integer:
//   KLR_MATMUL_INT32    int32    s
//   KLR_MATMUL_SCALED   float32  float(s) (a_scale[row] b_scale[column])
//   KLR_MATMUL_BLOCKS   float32  the sum, in the order of k, of float(s of 32 neighbors in k) (a_scale b_scale), each of the
//   block
//                               of 32 x 32 that they are in (Jetfire, arXiv:2403.12422); any k
typedef enum { KLR_MATMUL_INT32, KLR_MATMUL_SCALED, KLR_MATMUL_BLOCKS } klr_matmul_output;

// Matrices lie row after row, without gaps. A transposed one lies column after column, and so do its scales of blocks.
typedef struct {
  const int8_t* a;
  const int8_t* b;
  void* c;
  const float* a_scales;  // KLR_MATMUL_SCALED: one, or one a row; KLR_MATMUL_BLOCKS: ceil(m / 32) by ceil(k / 32)
  const float* b_scales;  // one, or one a column; ceil(k / 32) by ceil(n / 32)
  int64_t m, n, k;
  int64_t a_scales_size, b_scales_size;
  int32_t transpose_a, transpose_b;
  int32_t output;
  int32_t instruction_set;  // a number for `klr_matmul_instruction_set`, or -1: the best there is
} klr_matmul;

// What is wrong with sizes and scales, or null. The other functions require null.
KLR_API const char* klr_matmul_error(const klr_matmul* product);

// How many bytes of scratch memory the product needs; they should begin at a multiple of 64.
KLR_API int64_t klr_matmul_scratch(const klr_matmul* product);

// Packs pieces begin ... end - 1.
KLR_API int64_t klr_matmul_pieces(const klr_matmul* product);
KLR_API void klr_matmul_pack(const klr_matmul* product, void* scratch, int64_t begin, int64_t end);

// Computes tiles begin ... end - 1, when all pieces are packed.
KLR_API int64_t klr_matmul_tiles(const klr_matmul* product);
KLR_API void klr_matmul_compute(const klr_matmul* product, const void* scratch, int64_t begin, int64_t end);

// The name of an instruction set, the best first, or null: where this machine lacks it, and after the last.
KLR_API const char* klr_matmul_instruction_set(int number);

#ifdef __cplusplus
}
#endif
