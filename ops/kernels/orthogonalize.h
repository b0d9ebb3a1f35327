// Newton-Schulz iterations of several float32 matrices, over raw pointers: each comes to have singular values of about 1.
//
//   X = G / (safety ||G|| + epsilon), then for each step  A = X^T X,  B = b A + c A A,  X = a X + X B
//
// for a matrix with at least as many rows as columns, of others for the transposed one. A and B are symmetric, so that only
// half of each is computed: a square matrix of n rows takes 4 n^3 operations a step in the place of 6 n^3.
//
// No allocation, no threads, no framework. There are `klr_orthogonalize_phases` phases, one after the other, each of
// `klr_orthogonalize_pieces` pieces that the caller spreads over its threads. Results do not depend on their number, but on the
// instruction set: sums are rounded once a product where the machine can.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KLR_API __attribute__((visibility("default")))

// A matrix, row after row without gaps.
typedef struct {
  const float* from;
  float* to;  // may be the same
  int64_t rows, columns;
} klr_matrix;

typedef struct {
  const klr_matrix* matrices;
  int64_t count;
  const float* coefficients;  // a, b, c of each step
  int64_t steps;
  float safety, epsilon;
  int64_t threads;  // about how many work on the pieces
} klr_orthogonalize;

// What is wrong with sizes, or null. The other functions require null.
KLR_API const char* klr_orthogonalize_error(const klr_orthogonalize* it);

// How many bytes of scratch memory it needs; they should begin at a multiple of 64.
KLR_API int64_t klr_orthogonalize_scratch(const klr_orthogonalize* it);

KLR_API int64_t klr_orthogonalize_phases(const klr_orthogonalize* it);
KLR_API int64_t klr_orthogonalize_pieces(const klr_orthogonalize* it, int64_t phase);
KLR_API void klr_orthogonalize_run(const klr_orthogonalize* it, void* scratch, int64_t phase, int64_t begin, int64_t end);

// About how many floating-point operations a piece of a phase takes.
KLR_API int64_t klr_orthogonalize_cost(const klr_orthogonalize* it, int64_t phase);

// The name of the instruction set in use.
KLR_API const char* klr_orthogonalize_instruction_set(void);

#ifdef __cplusplus
}
#endif
