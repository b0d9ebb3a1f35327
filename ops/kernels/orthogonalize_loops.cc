// Newton-Schulz iterations, compiled once for each instruction set: KLR_ISA names the one that the flags select.
//
// All matrices lie in panels: kWidth neighboring columns are together, row after row, the last panel filled up with zeros. So
// each product reads its right operand from one end to the other, and no operand is ever packed.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "orthogonalize.h"
#include "orthogonalize_table.h"

namespace klr {
namespace KLR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVectors = 2, kRows = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kVectors = 2, kRows = 4;
#else
constexpr int kLanes = 4, kVectors = 2, kRows = 4;
#endif
constexpr int kWidth = kVectors * kLanes;
constexpr int64_t kDepth = 512;  // of a sum at a time: a part of a panel stays in the nearest caches meanwhile
constexpr int64_t kTall = 64;    // rows of X in a piece of a product

static_assert(kWidth % kRows == 0, "rows of a symmetric matrix that are computed together lie in one panel of columns");

typedef float Floats __attribute__((vector_size(kLanes * 4)));

int64_t up(int64_t n, int64_t size) { return (n + size - 1) / size; }

Floats load(const float* from) {
  Floats x;
  memcpy(&x, from, sizeof x);
  return x;
}

void store(float* to, Floats x) { memcpy(to, &x, sizeof x); }

// A matrix in panels.
struct Panels {
  float* numbers;
  int64_t rows, columns;

  float* at(int64_t row, int64_t column) const { return numbers + (column / kWidth * rows + row) * kWidth + column % kWidth; }
  int64_t count() const { return up(columns, kWidth); }
  int64_t vectors(int64_t panel) const { return columns - panel * kWidth > kLanes ? 2 : 1; }
};

// Numbers that a matrix in panels of so many rows takes.
int64_t size_of(int64_t rows, int64_t columns) { return up(columns, kWidth) * kWidth * rows; }

// The memory of one matrix: X and the next X, of `rows` rows and `columns` columns at most as many; A and B.
struct Work {
  Panels x, next, a, b;

  Work(const klr_matrix& matrix, float* memory) {
    const int64_t rows = std::max(matrix.rows, matrix.columns), columns = std::min(matrix.rows, matrix.columns);
    const int64_t all = up(rows, kRows) * kRows, square = up(columns, kRows) * kRows;  // rows that tiles may write
    x = {memory, all, columns}, next = {memory + size_of(all, columns), all, columns};
    a = {next.numbers + size_of(all, columns), square, columns};
    b = {a.numbers + size_of(square, columns), square, columns};
  }
  static int64_t size(const klr_matrix& matrix) {
    const Work own(matrix, nullptr);
    return 2 * size_of(own.x.rows, own.x.columns) + 2 * size_of(own.a.rows, own.a.columns);
  }
};

// Sums of kRows by kWidth, of which `V` vectors count, in registers.
template <int V>
struct Sums {
  Floats of[kRows][V];

  __attribute__((always_inline)) void clear() {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) of[i][v] = Floats{};
    }
  }

  __attribute__((always_inline)) void read(const float* from) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) of[i][v] = load(from + i * kWidth + v * kLanes);
    }
  }

  // Adds the products of `depth` columns of kRows rows, which lie `row` and `next` apart, with as many rows of a panel.
  __attribute__((always_inline)) void add(const float* __restrict left, int64_t row, int64_t next,
                                          const float* __restrict right, int64_t depth) {
    for (int64_t p = 0; p < depth; ++p, left += next, right += kWidth) {
      Floats columns[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) columns[v] = load(right + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) of[i][v] += columns[v] * left[i * row];
      }
    }
  }

  // scale times the sums + other times numbers that lie as the result does.
  __attribute__((always_inline)) void write(float* to, float scale, float other, const float* numbers) const {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        const int64_t place = i * kWidth + v * kLanes;
        store(to + place, numbers == nullptr ? of[i][v] : of[i][v] * scale + load(numbers + place) * other);
      }
    }
  }
};

// Writes kRows rows of a panel into the columns in which a symmetric matrix has them again.
void mirror(const Panels& s, int64_t row, int64_t column) {
  const float* from = s.at(row, column);
  const int64_t columns = std::min<int64_t>(kWidth, s.columns - column);
  for (int64_t j = 0; j < columns; ++j) {
    float* to = s.at(column + j, row);
    for (int i = 0; i < kRows; ++i) to[i] = from[i * kWidth + j];
  }
}

// A panel of the symmetric X^T X, or of scale X^T X + other `numbers`, from its diagonal on.
template <int V>
void symmetric_panel(const Panels& x, int64_t depth, const Panels& result, int64_t panel, float scale, float other,
                     const Panels* numbers) {
  const int64_t column = panel * kWidth;
  for (int64_t begin = 0; begin == 0 || begin < depth; begin += kDepth) {
    const int64_t part = std::min(kDepth, depth - begin);
    const bool is_last = begin + kDepth >= depth;
    for (int64_t row = column; row < result.columns; row += kRows) {
      Sums<V> sums;
      float* to = result.at(row, column);
      if (begin == 0) {
        sums.clear();
      } else {
        sums.read(to);
      }
      sums.add(x.at(begin, row), 1, kWidth, x.at(begin, column), part);
      sums.write(to, scale, other, is_last && numbers != nullptr ? numbers->at(row, column) : nullptr);
      if (is_last && row >= column + kWidth) mirror(result, row, column);
    }
  }
}

void symmetric(const Panels& x, int64_t depth, const Panels& result, int64_t panel, float scale = 1, float other = 0,
               const Panels* numbers = nullptr) {
  const auto of_panel = result.vectors(panel) == 1 ? symmetric_panel<1> : symmetric_panel<2>;
  of_panel(x, depth, result, panel, scale, other, numbers);
}

// Some rows of a panel of a X + X B.
template <int V>
void product_panel(const Panels& x, const Panels& b, const Panels& result, int64_t panel, int64_t begin, int64_t end, float a) {
  const int64_t column = panel * kWidth;
  for (int64_t row = begin; row < end; row += kRows) {
    Sums<V> sums;
    sums.clear();
    for (int64_t first = 0; first < x.columns; first += kWidth) {
      sums.add(x.at(row, first), kWidth, 1, b.at(first, column), std::min<int64_t>(kWidth, x.columns - first));
    }
    sums.write(result.at(row, column), 1, a, x.at(row, column));
  }
}

void product(const Panels& x, const Panels& b, const Panels& result, int64_t begin, int64_t end, float a) {
  for (int64_t panel = 0; panel < x.count(); ++panel) {
    const auto of_panel = x.vectors(panel) == 1 ? product_panel<1> : product_panel<2>;
    of_panel(x, b, result, panel, begin, end, a);
  }
}

// Blocks of the transposed matrix: lines of the cache are used whole on either side.
constexpr int64_t kBlock = 16;

template <class F>
void each_block(int64_t rows, int64_t columns, const F& f) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    for (int64_t j = 0; j < columns; j += kBlock) {
      f(i, std::min(rows, i + kBlock), j, std::min(columns, j + kBlock));
    }
  }
}

double sum_of_squares(const float* numbers, int64_t count) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int k = 0; k < 8; ++k) sums[k] += static_cast<double>(numbers[i + k]) * numbers[i + k];
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(numbers[i]) * numbers[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// X = G / (safety ||G|| + epsilon), transposed if it is wide.
void read(const klr_orthogonalize& it, const klr_matrix& matrix, const Panels& x) {
  const float* from = matrix.from;
  const int64_t rows = matrix.rows, columns = matrix.columns;
  const float norm = static_cast<float>(sqrt(sum_of_squares(from, rows * columns)));
  const float divisor = it.safety * norm + it.epsilon;
  memset(x.numbers, 0, size_of(x.rows, x.columns) * sizeof(float));
  if (rows >= columns) {
    for (int64_t column = 0; column < columns; column += kWidth) {
      const int64_t width = std::min<int64_t>(kWidth, columns - column);
      float* to = x.at(0, column);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < width; ++j) to[i * kWidth + j] = from[i * columns + column + j] / divisor;
      }
    }
    return;
  }
  each_block(rows, columns, [&](int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
    for (int64_t column = j; column < j_end; ++column) {
      for (int64_t row = i; row < i_end; ++row) *x.at(column, row) = from[row * columns + column] / divisor;
    }
  });
}

void write(const klr_matrix& matrix, const Panels& x) {
  float* to = matrix.to;
  const int64_t rows = matrix.rows, columns = matrix.columns;
  if (rows >= columns) {
    for (int64_t column = 0; column < columns; column += kWidth) {
      const int64_t width = std::min<int64_t>(kWidth, columns - column);
      const float* from = x.at(0, column);
      for (int64_t i = 0; i < rows; ++i) memcpy(to + i * columns + column, from + i * kWidth, width * sizeof(float));
    }
    return;
  }
  each_block(rows, columns, [&](int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
    for (int64_t row = i; row < i_end; ++row) {
      for (int64_t column = j; column < j_end; ++column) to[row * columns + column] = *x.at(column, row);
    }
  });
}

// The phases of a matrix: it is read; then, for each step, A, B and the next X are computed; it is written.
enum Part { kRead, kGram, kPolynomial, kProduct, kWrite };

int64_t phases_of_all(const klr_orthogonalize& it) { return 2 + 3 * it.steps; }

Part part_of(const klr_orthogonalize& it, int64_t phase) {
  if (phase == 0) return kRead;
  return phase == phases_of_all(it) - 1 ? kWrite : static_cast<Part>(kGram + (phase - 1) % 3);
}

int64_t pieces_of(const Work& work, Part part) {
  if (part == kRead || part == kWrite) return 1;
  return part == kProduct ? up(work.x.rows, kTall) : work.a.count();
}

void run_piece(const klr_orthogonalize& it, const klr_matrix& matrix, Work work, int64_t phase, int64_t piece) {
  const Part part = part_of(it, phase);
  const int64_t step = part == kWrite ? it.steps : phase == 0 ? 0 : (phase - 1) / 3;
  const float *abc = it.coefficients + 3 * step, a = step < it.steps ? abc[0] : 0, b = step < it.steps ? abc[1] : 0,
              c = step < it.steps ? abc[2] : 0;
  if (step % 2 == 1) std::swap(work.x, work.next);
  switch (part) {
    case kRead:
      return read(it, matrix, work.x);
    case kGram:
      return symmetric(work.x, work.x.rows, work.a, piece);
    case kPolynomial:
      return symmetric(work.a, work.a.columns, work.b, piece, c, b, &work.a);
    case kProduct:
      return product(work.x, work.b, work.next, piece * kTall, std::min(work.x.rows, (piece + 1) * kTall), a);
    case kWrite:
      return write(matrix, work.x);
  }
}

double operations(const klr_matrix& matrix) {
  const double s = std::min(matrix.rows, matrix.columns), l = std::max(matrix.rows, matrix.columns);
  return 3 * s * s * l + s * s * s + 100 * l;
}

// Whether each matrix is a piece from its first phase to its last: if none of them takes longer than the share of a thread.
bool one_by_one(const klr_orthogonalize& it) {
  double all = 0, largest = 0;
  for (int64_t i = 0; i < it.count; ++i) {
    const double own = operations(it.matrices[i]);
    all += own, largest = std::max(largest, own);
  }
  return all < 1e6 || largest * std::max<int64_t>(it.threads, 1) <= 1.2 * all;
}

bool is_empty(const klr_matrix& matrix) { return matrix.rows == 0 || matrix.columns == 0; }

int64_t scratch(const klr_orthogonalize& it) {
  int64_t numbers = 0;
  for (int64_t i = 0; i < it.count; ++i) numbers += up(Work::size(it.matrices[i]), kLanes) * kLanes;
  return numbers * static_cast<int64_t>(sizeof(float));
}

int64_t phases(const klr_orthogonalize& it) { return one_by_one(it) ? 1 : phases_of_all(it); }

int64_t pieces(const klr_orthogonalize& it, int64_t phase) {
  if (one_by_one(it)) return it.count;
  int64_t count = 0;
  for (int64_t i = 0; i < it.count; ++i) {
    if (!is_empty(it.matrices[i])) count += pieces_of(Work(it.matrices[i], nullptr), part_of(it, phase));
  }
  return count;
}

void run(const klr_orthogonalize& it, void* memory, int64_t phase, int64_t begin, int64_t end) {
  const bool alone = one_by_one(it);
  float* numbers = static_cast<float*>(memory);
  int64_t first = 0;  // the number of a matrix' first piece
  for (int64_t i = 0; i < it.count && first < end; ++i) {
    const klr_matrix& matrix = it.matrices[i];
    const Work work(matrix, numbers);
    numbers += up(Work::size(matrix), kLanes) * kLanes;
    const int64_t own = alone ? 1 : is_empty(matrix) ? 0 : pieces_of(work, part_of(it, phase));
    for (int64_t piece = std::max(begin - first, int64_t{0}); piece < std::min(own, end - first); ++piece) {
      if (!alone) {
        run_piece(it, matrix, work, phase, piece);
        continue;
      }
      for (int64_t each = 0; each < phases_of_all(it) && !is_empty(matrix); ++each) {
        for (int64_t k = 0; k < pieces_of(work, part_of(it, each)); ++k) run_piece(it, matrix, work, each, k);
      }
    }
    first += own;
  }
}

}  // namespace

extern const OrthogonalizeTable orthogonalize_table = {scratch, phases, pieces, run};

}  // namespace KLR_ISA
}  // namespace klr
