// The bodies of the kernels in quantize.cu: what a team of threads does with one block of a tensor.
//
// Nothing here needs CUDA: tests/native/test_quantize_cuda.cc runs the same on the host. A team has
//
//   lane, size                        a thread's place in it, and how many there are
//   uint32_t largest(uint32_t own)    the largest of all lanes
//   void sync()                       what lanes wrote to `errors` before, all see behind
//   float* errors                     room for a block, for four over six
//
// and all its threads call the same in the same order.
#pragma once

#include <type_traits>

#include "../ops/kernels/philox.h"
#include "../ops/kernels/quantize_scales.h"

#ifdef __CUDA_ARCH__
#define KLR_UNROLL _Pragma("unroll")  // arrays that are indexed by a loop stay in registers
#else
#define KLR_UNROLL
#endif

namespace klr {
namespace KLR_ISA {

constexpr int kUnit = 8;                // neighbors along the axis that a thread takes at a time
constexpr int64_t kPiece = 8192;        // columns at a time of what is too long for one team
constexpr int64_t kStridedPiece = 512;  // the same where neighbors along the axis are not neighbors in memory
constexpr int kLargestTeam = 256, kLargestStridedTeam = 16;

enum Source { kOwn, kOfRow, kOfTensor };  // whose scale a block has

// How a tensor is cut into blocks, and how they lie in memory. Every one of `others` has `down` rows of `across` blocks.
struct Plan {
  int32_t rule, stochastic, source, bits;
  int64_t others, rows, columns, inner;
  int64_t block_rows, block_columns, down, across, blocks;
  int64_t code_columns, code_bytes;  // of a row
  int64_t row_stride, column_stride;
  int32_t units_across, units;  // of a block
  int32_t team;                 // threads for a block: a power of two
  bool side_by_side;            // the next thread belongs to the next row, and not to the next unit
  bool wide;                    // numbers may be accessed 16 bytes at a time
  bool wide_codes;              // so may the codes of a unit
};

// `in_place`: the result lies as the tensor does, so that one block for all has no rows.
inline Plan plan_of(const klr_quantizer& q, bool in_place) {
  Plan p = {};
  p.rule = q.rule, p.stochastic = q.stochastic, p.bits = bits_of_element(q.element);
  const int64_t group = group_of(p.bits), all_rows = q.outer * q.inner;
  const bool whole = q.block_rows == 0, by_row = !whole && q.block_columns == 0;
  const bool flat = whole ? in_place || (q.inner == 1 && q.columns % group == 0)
                          : !by_row && q.block_rows == 1 && q.inner == 1 && q.columns % q.block_columns == 0;
  p.block_rows = q.block_rows > 1 ? q.block_rows : 1;
  p.others = p.block_rows > 1 ? all_rows / rows_together(q) : 1;
  p.rows = flat ? 1 : p.block_rows > 1 ? rows_together(q) : all_rows;
  p.columns = flat ? q.columns * all_rows : q.columns;
  p.inner = flat ? 1 : q.inner;
  p.code_columns = up_to(p.columns, whole || by_row ? group : q.block_columns);
  p.code_bytes = p.code_columns * p.bits / 8;
  p.source = whole ? kOfTensor : by_row && p.code_columns > KLR_LARGEST_BLOCK ? kOfRow : kOwn;
  p.block_columns = p.source != kOwn ? (p.inner == 1 ? kPiece : kStridedPiece) : by_row ? p.code_columns : q.block_columns;
  p.down = up_to(p.rows, p.block_rows) / p.block_rows;
  p.across = up_to(p.code_columns, p.block_columns) / p.block_columns;
  p.blocks = p.others * p.down * p.across;
  p.row_stride = p.inner == 1 ? p.columns : 1;
  p.column_stride = p.inner;
  p.units_across = static_cast<int32_t>(up_to(p.block_columns, kUnit) / kUnit);
  p.units = static_cast<int32_t>(p.units_across * p.block_rows);
  p.side_by_side = p.inner > 1 && p.block_rows == 1;
  p.team = 1;
  while (p.team < p.units && p.team < (p.side_by_side ? kLargestStridedTeam : kLargestTeam)) p.team *= 2;
  return p;
}

// Finds out what is aligned; `x` and `y` are numbers of `bytes` each, and may be the same.
inline void set_alignment(Plan* p, int bytes, const void* x, const void* y, const void* codes) {
  const auto divides = [](int64_t n, const void* a) { return reinterpret_cast<uintptr_t>(a) % static_cast<uintptr_t>(n) == 0; };
  const bool one_row = p->others * p->rows == 1;
  p->wide = p->inner == 1 && divides(16, x) && divides(16, y) && p->block_columns * bytes % 16 == 0 &&
            (one_row || p->columns * bytes % 16 == 0);
  const int64_t unit = p->bits == 6 ? 2 : p->bits;
  p->wide_codes = divides(unit, codes) && p->block_columns * p->bits / 8 % unit == 0 && (one_row || p->code_bytes % unit == 0);
}

// A division of 64 bits takes long on a GPU.
KLR_BOTH inline int64_t divided(int64_t a, int64_t b) {
  if ((a | b) >> 32 == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// Where a block is: how many rows it has, its columns, its first number, row of codes, and scale.
struct Place {
  int64_t rows, column, first, code_row, scale;
};

KLR_BOTH inline Place place_of(const Plan& p, int64_t block) {
  if (p.others * p.rows == 1) {
    const int64_t column = block * p.block_columns;
    return {1, column, column * p.column_stride, 0, p.source == kOwn ? block : 0};
  }
  int64_t across, down;
  if (p.side_by_side) {
    across = divided(block, p.down), down = block - across * p.down;
  } else {
    down = divided(block, p.across), across = block - down * p.across;
  }
  const int64_t other = p.block_rows > 1 ? divided(down, p.down) : 0, row = (down - other * p.down) * p.block_rows;
  const int64_t all = other * p.rows + row, outer = divided(all, p.inner), column = across * p.block_columns;
  const int64_t first = (outer * p.columns + column) * p.inner + (all - outer * p.inner);
  const int64_t scale = p.source == kOfTensor ? 0 : p.source == kOfRow ? down : down * p.across + across;
  return {p.rows - row, column, first, down * p.block_rows, scale};
}

// A unit of a block: its row and column in there, its first number, how many there are, and how many codes.
struct Unit {
  int64_t row, column, first;
  int count, codes;
};

KLR_BOTH inline int between_0_and(int most, int64_t n) { return n < 0 ? 0 : n > most ? most : static_cast<int>(n); }

KLR_BOTH inline Unit unit_of(const Plan& p, const Place& place, int32_t i) {
  int32_t row = 0, across = i;
  if (p.block_rows > 1) {  // neighbors in memory go to neighboring threads
    const int32_t rows = static_cast<int32_t>(p.block_rows);
    row = p.inner == 1 ? i / p.units_across : i % rows;
    across = p.inner == 1 ? i % p.units_across : i / rows;
  }
  const int64_t k = static_cast<int64_t>(across) * kUnit;
  const int codes = between_0_and(between_0_and(kUnit, p.block_columns - k), p.code_columns - place.column - k);
  const int count = row < place.rows ? between_0_and(codes, p.columns - place.column - k) : 0;
  return {row, k, place.first + row * p.row_stride + k * p.column_stride, count, codes};
}

struct Numbers {
  float of[kUnit];
};

template <class T>
struct alignas(16) Wide {
  T entries[16 / sizeof(T)];
};

// The numbers of a unit, and zeros behind.
template <class T>
KLR_BOTH inline Numbers read(const Plan& p, const T* x, const Unit& unit) {
  constexpr int kWide = 16 / sizeof(T);
  Numbers numbers;
  if (p.wide && unit.count == kUnit) {
    KLR_UNROLL
    for (int part = 0; part < kUnit / kWide; ++part) {
      const Wide<T> wide = *reinterpret_cast<const Wide<T>*>(x + unit.first + part * kWide);
      KLR_UNROLL
      for (int j = 0; j < kWide; ++j) numbers.of[part * kWide + j] = load(wide.entries[j]);
    }
  } else {
    KLR_UNROLL
    for (int j = 0; j < kUnit; ++j) numbers.of[j] = j < unit.count ? load(x[unit.first + j * p.column_stride]) : 0;
  }
  return numbers;
}

template <class T>
KLR_BOTH inline void write(const Plan& p, const Numbers& numbers, const Unit& unit, T* y) {
  constexpr int kWide = 16 / sizeof(T);
  if (p.wide && unit.count == kUnit) {
    KLR_UNROLL
    for (int part = 0; part < kUnit / kWide; ++part) {
      Wide<T> wide;
      KLR_UNROLL
      for (int j = 0; j < kWide; ++j) store(wide.entries[j], numbers.of[part * kWide + j]);
      *reinterpret_cast<Wide<T>*>(y + unit.first + part * kWide) = wide;
    }
  } else {
    KLR_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      if (j < unit.count) store(y[unit.first + j * p.column_stride], numbers.of[j]);
    }
  }
}

// Where the codes of a unit are.
KLR_BOTH inline int64_t byte_of(const Plan& p, const Place& place, const Unit& unit) {
  return (place.code_row + unit.row) * p.code_bytes + (place.column + unit.column) * p.bits / 8;
}

// The codes of a unit, the first in the lowest bits; a whole unit has kBits bytes.
template <int kBits>
KLR_BOTH inline void write_codes(const Plan& p, uint64_t codes, int count, uint8_t* to) {
  if (p.wide_codes && count == kUnit) {
    if (kBits == 8) *reinterpret_cast<uint64_t*>(to) = codes;
    if (kBits == 4) *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(codes);
    for (int j = 0; kBits == 6 && j < 3; ++j) reinterpret_cast<uint16_t*>(to)[j] = static_cast<uint16_t>(codes >> (16 * j));
  } else {
    for (int j = 0; j < count * kBits / 8; ++j) to[j] = static_cast<uint8_t>(codes >> (8 * j));
  }
}

template <int kBits>
KLR_BOTH inline uint64_t read_codes(const Plan& p, const uint8_t* from, int count) {
  uint64_t codes = 0;
  if (p.wide_codes && count == kUnit) {
    if (kBits == 8) codes = *reinterpret_cast<const uint64_t*>(from);
    if (kBits == 4) codes = *reinterpret_cast<const uint32_t*>(from);
    for (int j = 0; kBits == 6 && j < 3; ++j) {
      codes |= static_cast<uint64_t>(reinterpret_cast<const uint16_t*>(from)[j]) << (16 * j);
    }
  } else {
    for (int j = 0; j < count * kBits / 8; ++j) codes |= static_cast<uint64_t>(from[j]) << (8 * j);
  }
  return codes;
}

struct Words {
  uint32_t a, b, c, d;
};

// Not inlined, so that loops over the numbers of a unit can be unrolled around it.
static KLR_BOTH __attribute__((noinline)) Words random_words(uint32_t counter, uint32_t k0, uint32_t k1) {
  uint32_t c0[1] = {counter}, c1[1] = {}, c2[1] = {}, c3[1] = {};
  philox(k0, k1, c0, c1, c2, c3);
  return {c0[0], c1[0], c2[0], c3[0]};
}

// Words of the stream of Philox4x32-10, without their two lowest bits; four are made at a time. The seed is read when the first
// is needed.
class Noise {
 public:
  KLR_BOTH explicit Noise(const uint32_t* seed) : seed_(seed) {}

  KLR_BOTH uint32_t operator()(uint64_t i) {
    if (!made_ || i / 4 != counter_) {
      counter_ = i / 4, made_ = true;
      words_ = random_words(static_cast<uint32_t>(counter_), seed_[0], seed_[1]);
    }
    const uint32_t low = i % 2 ? words_.b : words_.a, high = i % 2 ? words_.d : words_.c;
    return (i % 4 < 2 ? low : high) >> 2;
  }

 private:
  const uint32_t* seed_;
  Words words_ = {};
  uint64_t counter_ = 0;
  bool made_ = false;
};

// The bits of the largest magnitude.
KLR_BOTH inline uint32_t largest_of(const Numbers& numbers, uint32_t largest) {
  KLR_UNROLL
  for (int j = 0; j < kUnit; ++j) {
    const uint32_t size = bits_of(numbers.of[j]) & ~kSign;
    largest = size > largest ? size : largest;
  }
  return largest;
}

// In units of the element. The sign of a NaN is kept, which arithmetic on a GPU does not do.
template <class E>
KLR_BOTH inline float in_units(float x, float factor, bool divide) {
  if (!E::kInteger && x != x) return x;
  return E::kInteger && divide ? x / factor : x * factor;
}

// The number that a rounded one, in units of the element, stands for.
KLR_BOTH inline float scaled(float x, float scale, bool exact) {
  return !exact && scale < kSmallScale ? product(x, scale) : x * scale;
}

template <class E>
KLR_BOTH inline float round_trip(float x, const Scale& scale, bool divide, bool exact) {
  return scale.factor == 0 ? 0 * scale.scale
                           : scaled(rounded<E, false>(in_units<E>(x, scale.factor, divide), 0), scale.scale, exact);
}

// The sum of rows x columns numbers in `errors`, in the order of the plain path: halves of the rows are added, then of the
// columns.
template <class Team>
KLR_BOTH float pairwise_sum(Team& team, int64_t rows, int64_t columns) {
  float* x = team.errors;
  for (int64_t n = rows, width = columns;; n = columns, width = 1) {
    for (int64_t half; n > 1; n -= half) {
      half = n / 2;
      for (int64_t i = team.lane; i < half * width; i += team.size) x[i] += x[half * width + i];
      team.sync();
      if (n % 2) {
        for (int64_t i = team.lane; i < width; i += team.size) x[half * width + i] = x[2 * half * width + i];
        team.sync();
      }
    }
    if (width == 1) break;
  }
  const float sum = x[0];
  team.sync();
  return sum;
}

// The sum of absolute errors of a block in NVFP4; `held` is the first unit of this thread.
template <class T, class Team>
KLR_BOTH float error_of(const Plan& p, const T* x, const Place& place, int32_t units, const Numbers& held, const Scale& scale,
                        Team& team) {
  for (int32_t u = team.lane; u < units; u += team.size) {
    const Unit unit = unit_of(p, place, u);
    const Numbers numbers = u == team.lane ? held : read(p, x, unit);
    float* to = team.errors + unit.row * p.block_columns + unit.column;
    KLR_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const float y = round_trip<E2M1>(numbers.of[j], scale, false, false);
      if (j < unit.codes) to[j] = float_of(bits_of(y - numbers.of[j]) & ~kSign);
    }
  }
  team.sync();
  return pairwise_sum(team, p.block_rows, p.block_columns);
}

// The bits of the largest magnitude of a block.
template <class T, class Team>
KLR_BOTH uint32_t amax_of_block(const Plan& p, const T* x, int64_t block, Team& team) {
  const bool active = block < p.blocks;
  const Place place = place_of(p, active ? block : 0);
  uint32_t own = 0;
  for (int32_t u = team.lane; active && u < p.units; u += team.size) own = largest_of(read(p, x, unit_of(p, place, u)), own);
  return team.largest(own);
}

// The numbers of a tensor in NVFP4 as `tensor`; the largest magnitudes of rows or the tensor, if blocks share these.
struct Shared {
  const uint32_t* seed;
  const uint32_t* amax;
  const float* tensor;
};

template <class E, class T, class Team>
KLR_BOTH Scale scale_of(const Plan& p, const T* x, const Shared& shared, const Place& place, int32_t units, const Numbers& held,
                        Team& team) {
  if (p.source != kOwn) return fit<E>(p.rule, shared.amax[place.scale]);
  uint32_t amax = 0;
  for (int32_t u = team.lane; u < units; u += team.size) {
    amax = largest_of(u == team.lane ? held : read(p, x, unit_of(p, place, u)), amax);
  }
  amax = team.largest(amax);
  if constexpr (std::is_same<E, E2M1>::value) {
    if (is_nvfp4(p.rule)) {
      const float per_six = shared.tensor[0], tensor_scale = shared.tensor[1];
      const Scale six = fit_nvfp4(amax, per_six, tensor_scale);
      if (p.rule != KLR_FOUR_OVER_SIX) return six;
      const Scale four = fit_nvfp4(amax, product(per_six, 1.5f), tensor_scale);
      const float error_of_four = error_of(p, x, place, units, held, four, team);
      const float error_of_six = error_of(p, x, place, units, held, six, team);
      return amax < kInfinity && error_of_four < error_of_six ? four : six;
    }
  }
  return fit<E>(p.rule, amax);
}

// Calls f(unit, its numbers, scale) for what falls to this thread.
template <class E, class T, class Team, class F>
KLR_BOTH void each_unit(const Plan& p, const T* x, const Shared& shared, int64_t block, Team& team, F f) {
  const bool active = block < p.blocks;
  const Place place = place_of(p, active ? block : 0);
  const int32_t units = active ? p.units : 0;
  Numbers held = {};
  if (team.lane < units) held = read(p, x, unit_of(p, place, team.lane));
  const Scale scale = scale_of<E>(p, x, shared, place, units, held, team);
  for (int32_t u = team.lane; u < units; u += team.size) {
    const Unit unit = unit_of(p, place, u);
    f(place, unit, u == team.lane ? held : read(p, x, unit), scale);
  }
}

template <class E, class T, class Team>
KLR_BOTH void quantize_block(const Plan& p, const T* x, const Shared& shared, int64_t block, Team& team, uint8_t* codes,
                             void* scales) {
  const bool divide = has_float32(p.rule);
  Noise noise(shared.seed);
  each_unit<E>(
      p, x, shared, block, team, [&](const Place& place, const Unit& unit, const Numbers& numbers, const Scale& scale) {
        uint64_t word = 0;
        KLR_UNROLL
        for (int j = 0; j < kUnit; ++j) {
          const float in = scale.factor == 0 ? 0.0f : in_units<E>(numbers.of[j], scale.factor, divide);
          const uint32_t code = p.stochastic && j < unit.count ? code_of<E, true>(in, noise(unit.first + j * p.column_stride))
                                                               : code_of<E, false>(in, 0);
          word |= static_cast<uint64_t>(code) << (j * E::kBits);
        }
        write_codes<E::kBits>(p, word, unit.codes, codes + byte_of(p, place, unit));
        if (unit.row != 0 || unit.column != 0 || (p.source != kOwn && place.column != 0)) return;
        if (p.source == kOfTensor && place.code_row != 0) return;
        if (has_float32(p.rule)) {
          static_cast<float*>(scales)[place.scale] = scale.scale;
        } else {
          static_cast<uint8_t*>(scales)[place.scale] = static_cast<uint8_t>(scale.byte);
        }
      });
}

template <class E, class T, class Team>
KLR_BOTH void fake_quantize_block(const Plan& p, const T* x, const Shared& shared, int64_t block, Team& team, T* y) {
  const bool divide = has_float32(p.rule), exact = has_e8m0(p.rule);
  Noise noise(shared.seed);
  each_unit<E>(p, x, shared, block, team, [&](const Place&, const Unit& unit, const Numbers& numbers, const Scale& scale) {
    Numbers result;
    KLR_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      if (p.stochastic && scale.factor != 0 && j < unit.count) {
        const float in = in_units<E>(numbers.of[j], scale.factor, divide);
        const float out = rounded<E, true>(in, noise(unit.first + j * p.column_stride));
        result.of[j] = scaled(out, scale.scale, exact);
      } else {
        result.of[j] = round_trip<E>(numbers.of[j], scale, divide, exact);
      }
    }
    write(p, result, unit, y);
  });
}

template <class E, class Team>
KLR_BOTH void dequantize_block(const Plan& p, const uint8_t* codes, const void* scales, const float* tensor_scale,
                               int64_t block, Team& team, float* y) {
  if (block >= p.blocks) return;
  const Place place = place_of(p, block);
  const float scale = scale_of(p.rule, raw_scale(p.rule, scales, place.scale), tensor_scale ? *tensor_scale : 1);
  for (int32_t u = team.lane; u < p.units; u += team.size) {
    const Unit unit = unit_of(p, place, u);
    if (unit.count == 0) continue;
    const uint64_t word = read_codes<E::kBits>(p, codes + byte_of(p, place, unit), unit.codes);
    Numbers result;
    KLR_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const uint32_t code = static_cast<uint32_t>(word >> (j * E::kBits)) & (2 * E::kHalf - 1);
      result.of[j] = scaled(value_of<E>(code), scale, has_e8m0(p.rule));
    }
    write(p, result, unit, y);
  }
}

}  // namespace KLR_ISA
}  // namespace klr
