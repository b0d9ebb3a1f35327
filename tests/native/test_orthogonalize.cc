// Newton-Schulz iterations of each instruction set beside double precision, in one phase a matrix and in many, by pieces in
// another order.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

#include "../../ops/kernels/orthogonalize.h"
#include "../../ops/kernels/orthogonalize_table.h"

namespace {

using Numbers = std::vector<float>;
constexpr float kCoefficients[] = {3.4445f, -4.7750f, 2.0315f, 3.4445f, -4.7750f, 2.0315f, 2.0f, -1.5f, 0.0f};
constexpr int64_t kSteps = 3;
constexpr float kSafety = 1.02f, kEpsilon = 1e-7f;

struct Size {
  int64_t rows, columns;
};

Numbers random_matrix(int64_t count) {
  Numbers numbers(count);
  for (float& each : numbers) each = static_cast<float>(rand()) / RAND_MAX - 0.5f;
  return numbers;
}

std::vector<double> expected(const Numbers& g, Size size) {
  const int64_t r = size.rows, c = size.columns;
  double norm = 0;
  for (float each : g) norm += static_cast<double>(each) * each;
  std::vector<double> x(g.begin(), g.end());
  for (double& each : x) each /= kSafety * sqrt(norm) + kEpsilon;
  for (int64_t step = 0; step < kSteps; ++step) {
    const float* abc = kCoefficients + 3 * step;
    std::vector<double> a(c * c), b(c * c), next(r * c);
    for (int64_t i = 0; i < c; ++i) {
      for (int64_t j = 0; j < c; ++j) {
        for (int64_t p = 0; p < r; ++p) a[i * c + j] += x[p * c + i] * x[p * c + j];
      }
    }
    for (int64_t i = 0; i < c; ++i) {
      for (int64_t j = 0; j < c; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < c; ++p) sum += a[i * c + p] * a[p * c + j];
        b[i * c + j] = abc[1] * a[i * c + j] + abc[2] * sum;
      }
    }
    for (int64_t i = 0; i < r; ++i) {
      for (int64_t j = 0; j < c; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < c; ++p) sum += x[i * c + p] * b[p * c + j];
        next[i * c + j] = abc[0] * x[i * c + j] + sum;
      }
    }
    x = next;
  }
  return x;
}

// All matrices at once, as so many threads would.
std::vector<Numbers> orthogonalized(const klr::OrthogonalizeTable& table, const std::vector<Numbers>& given,
                                    const std::vector<Size>& sizes, int64_t threads, bool backwards) {
  std::vector<Numbers> results;
  std::vector<klr_matrix> matrices;
  for (const Numbers& each : given) results.emplace_back(each.size());
  for (size_t i = 0; i < given.size(); ++i) {
    matrices.push_back({given[i].data(), results[i].data(), sizes[i].rows, sizes[i].columns});
  }
  const klr_orthogonalize all = {
      matrices.data(), static_cast<int64_t>(matrices.size()), kCoefficients, kSteps, kSafety, kEpsilon, threads};
  const int64_t bytes = table.scratch(all);
  void* scratch = aligned_alloc(64, (bytes / 64 + 1) * 64);
  std::fill(static_cast<float*>(scratch), static_cast<float*>(scratch) + bytes / 4, NAN);  // what it held before is not read
  for (int64_t phase = 0; phase < table.phases(all); ++phase) {
    const int64_t pieces = table.pieces(all, phase);
    for (int64_t k = 0; k < pieces; ++k) {
      const int64_t piece = backwards ? pieces - 1 - k : k;
      table.run(all, scratch, phase, piece, piece + 1);
    }
  }
  free(scratch);
  return results;
}

bool check(const char* name, const klr::OrthogonalizeTable& table) {
  const std::vector<Size> sizes = {{1, 1},   {3, 5},   {5, 3},   {16, 16},  {17, 31}, {0, 4},    {4, 0},
                                   {64, 64}, {33, 70}, {70, 33}, {65, 200}, {96, 96}, {520, 40}, {40, 1100}};
  std::vector<Numbers> given;
  for (const Size& size : sizes) given.push_back(random_matrix(size.rows * size.columns));
  const auto first = orthogonalized(table, given, sizes, 1, false);
  for (int64_t threads : {2, 64}) {
    if (orthogonalized(table, given, sizes, threads, true) != first) {
      printf("orthogonalize, %s: results differ for %d threads\n", name, static_cast<int>(threads));
      return false;
    }
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto exact = expected(given[i], sizes[i]);
    double error = 0;
    for (size_t k = 0; k < exact.size(); ++k) error = std::max(error, fabs(exact[k] - first[i][k]));
    if (!(error < 5e-6)) {
      printf("orthogonalize, %s: error %g for %d x %d\n", name, error, static_cast<int>(sizes[i].rows),
             static_cast<int>(sizes[i].columns));
      return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  bool right = check("baseline", klr::baseline::orthogonalize_table);
#ifdef KLR_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) right &= check("avx2", klr::avx2::orthogonalize_table);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) {
    right &= check("avx512", klr::avx512::orthogonalize_table);
  }
#endif
  printf("orthogonalize: %s, %s\n", klr_orthogonalize_instruction_set(), right ? "right" : "WRONG");
  return right ? 0 : 1;
}
