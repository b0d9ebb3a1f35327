// Tests of products of int8 matrices that need no Python: run by `make test-native`, with the sanitizers of the compiler.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../../ops/kernels/matmul.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

namespace {

constexpr int64_t kBlock = KLR_MATMUL_BLOCK;

int64_t up(int64_t n) { return (n + kBlock - 1) / kBlock; }

// Matrices, scales and result in exactly sized allocations, so that a sanitizer sees what lies beyond.
struct Problem {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  int output;
  std::vector<int8_t> a, b;
  std::vector<float> a_scales, b_scales;

  Problem(int64_t m, int64_t n, int64_t k, int layout, int output)
      : m(m), n(n), k(k), transpose_a(layout & 1), transpose_b(layout & 2), output(output), a(m * k), b(k * n) {
    std::mt19937 random(1);
    for (int8_t& x : a) x = static_cast<int8_t>(random());
    for (int8_t& x : b) x = static_cast<int8_t>(random());
    if (output == KLR_MATMUL_SCALED) a_scales.resize(m), b_scales.resize(n);
    if (output == KLR_MATMUL_BLOCKS) a_scales.resize(up(m) * up(k)), b_scales.resize(up(k) * up(n));
    for (float& x : a_scales) x = static_cast<float>(random() % 1000) / 1000;
    for (float& x : b_scales) x = static_cast<float>(random() % 1000) / 1000;
  }

  int a_at(int64_t row, int64_t p) const { return transpose_a ? a[p * m + row] : a[row * k + p]; }
  int b_at(int64_t p, int64_t column) const { return transpose_b ? b[column * k + p] : b[p * n + column]; }
  float a_scale(int64_t row, int64_t p) const { return a_scales[transpose_a ? p * up(m) + row : row * up(k) + p]; }
  float b_scale(int64_t p, int64_t column) const { return b_scales[transpose_b ? column * up(k) + p : p * up(n) + column]; }

  int32_t sum(int64_t row, int64_t column, int64_t begin, int64_t end) const {
    int64_t sum = 0;
    for (int64_t p = begin; p < end; ++p) sum += a_at(row, p) * b_at(p, column);
    return static_cast<int32_t>(sum);
  }

  // One number of the result, as bits.
  int32_t expected(int64_t row, int64_t column) const {
    float y = 0;
    if (output == KLR_MATMUL_INT32) return sum(row, column, 0, k);
    if (output == KLR_MATMUL_SCALED) y = static_cast<float>(sum(row, column, 0, k)) * (a_scales[row] * b_scales[column]);
    for (int64_t q = 0; output == KLR_MATMUL_BLOCKS && q < up(k); ++q) {
      const float scale = a_scale(row / kBlock, q) * b_scale(q, column / kBlock);
      y += static_cast<float>(sum(row, column, q * kBlock, std::min(k, (q + 1) * kBlock))) * scale;
    }
    int32_t bits;
    std::memcpy(&bits, &y, 4);
    return bits;
  }

  // The result, in `parts` that come in the wrong order, as threads might.
  std::vector<int32_t> multiply(int instruction_set, int parts) const {
    std::vector<int32_t> c(m * n, 12345);
    const klr_matmul product = {a.data(),
                                b.data(),
                                c.data(),
                                a_scales.data(),
                                b_scales.data(),
                                m,
                                n,
                                k,
                                static_cast<int64_t>(a_scales.size()),
                                static_cast<int64_t>(b_scales.size()),
                                transpose_a,
                                transpose_b,
                                output,
                                instruction_set};
    CHECK(klr_matmul_error(&product) == nullptr);
    const std::unique_ptr<char[]> scratch(new char[klr_matmul_scratch(&product)]);
    std::memset(scratch.get(), 77, klr_matmul_scratch(&product));
    const int64_t pieces = klr_matmul_pieces(&product), tiles = klr_matmul_tiles(&product);
    for (int part = parts - 1; part >= 0; --part) {
      klr_matmul_pack(&product, scratch.get(), pieces * part / parts, pieces * (part + 1) / parts);
    }
    for (int part = parts - 1; part >= 0; --part) {
      klr_matmul_compute(&product, scratch.get(), tiles * part / parts, tiles * (part + 1) / parts);
    }
    return c;
  }
};

const int64_t kSizes[][3] = {{1, 1, 1}, {3, 5, 2}, {4, 64, 32}, {7, 9, 31}, {66, 65, 70}, {130, 258, 40}, {5, 3, 1030},
                             {0, 3, 4}, {3, 0, 4}, {3, 4, 0},   {0, 0, 0},  {70, 200, 0}, {33, 40, 64},   {32, 32, 33}};

void all_instruction_sets_give_what_they_should() {
  for (int set = 0; klr_matmul_instruction_set(set) != nullptr || set < 2; ++set) {
    if (klr_matmul_instruction_set(set) == nullptr) continue;  // a machine without it
    for (const auto& size : kSizes) {
      for (int layout = 0; layout < 4; ++layout) {
        for (int output : {KLR_MATMUL_INT32, KLR_MATMUL_SCALED, KLR_MATMUL_BLOCKS}) {
          const Problem problem(size[0], size[1], size[2], layout, output);
          const std::vector<int32_t> c = problem.multiply(set, 1);
          for (int64_t row = 0; row < problem.m; ++row) {
            for (int64_t column = 0; column < problem.n; ++column) {
              CHECK(c[row * problem.n + column] == problem.expected(row, column));
            }
          }
          CHECK(c == problem.multiply(set, 3));
        }
      }
    }
  }
}

void what_does_not_fit_is_refused() {
  klr_matmul product = {};
  product.m = product.n = 40, product.k = KLR_MATMUL_MAX_K, product.instruction_set = -1;
  CHECK(klr_matmul_error(&product) == nullptr);
  product.k += 1;
  CHECK(klr_matmul_error(&product) != nullptr);
  product.k = -1;
  CHECK(klr_matmul_error(&product) != nullptr);
  product.k = 40, product.output = KLR_MATMUL_SCALED, product.a_scales_size = 40, product.b_scales_size = 1;
  CHECK(klr_matmul_error(&product) == nullptr);
  product.b_scales_size = 2;
  CHECK(klr_matmul_error(&product) != nullptr);
  product.output = KLR_MATMUL_BLOCKS, product.a_scales_size = product.b_scales_size = 4;
  CHECK(klr_matmul_error(&product) == nullptr);
  product.a_scales_size = 3;
  CHECK(klr_matmul_error(&product) != nullptr);
  product.output = 3;
  CHECK(klr_matmul_error(&product) != nullptr);
  product.output = KLR_MATMUL_INT32, product.instruction_set = 99;
  CHECK(klr_matmul_error(&product) != nullptr);
}

}  // namespace

int main() {
  all_instruction_sets_give_what_they_should();
  what_does_not_fit_is_refused();
  std::printf("ops/kernels, matmul: all tests passed, best on %s\n",
              klr_matmul_instruction_set(0) ? klr_matmul_instruction_set(0) : "less than AVX-512");
}
