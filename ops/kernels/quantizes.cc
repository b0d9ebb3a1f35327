// Loops over pieces of a tensor, compiled once for each instruction set: KL_ISA names the one that the flags select.
//
// A piece is read into float32 rows of whole blocks, unless it lies so in memory; the same for what is written.
#include <string.h>

#include "quantize_scales.h"

namespace kl {
namespace KL_ISA {
namespace {

constexpr int64_t kLanes = 32;  // counters of Philox at once, a loop that compilers turn into vectors (16 are unrolled)
constexpr int64_t kBuffer = KL_LARGEST_BLOCK;  // entries of a piece at most
constexpr int64_t kBlocks = 4096;              // of a row of a piece at most

template <class Function>
void each_piece(const Cut& cut, int64_t begin, int64_t end, Function f) {
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t segment = piece % cut.segments, strip = piece / cut.segments;
    f(strip / cut.strips, strip % cut.strips * cut.height, segment * cut.width);
  }
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Where a piece is: its first row (of one of `others`) and column, how many of them there are, and how many columns fill
// blocks.
struct Piece {
  int64_t other, row, column, height, width, padded;

  Piece(const Cut& cut, int64_t other, int64_t row, int64_t column)
      : other(other),
        row(row),
        column(column),
        height(least(cut.height, cut.rows - row)),
        width(least(cut.width, cut.columns - column)),
        padded(up_to(width, cut.block_columns)) {}

  // The place of its first entry, and the distances to the next row and column.
  int64_t first(const Cut& cut) const {
    const int64_t all = other * cut.rows + row, o = all / cut.inner, i = all % cut.inner;
    return (o * cut.columns + column) * cut.inner + i;
  }
  int64_t row_stride(const Cut& cut) const { return cut.inner == 1 ? cut.columns : 1; }

  // The row of codes, and of blocks.
  int64_t code_row(const Cut& cut) const { return other * up_to(cut.rows, cut.block_rows) + row; }
  int64_t block_row(const Cut& cut) const { return code_row(cut) / cut.block_rows; }
};

// n entries, side by side or not.
template <class T>
void widen(const T* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}
template <class T>
void narrow(const float* __restrict from, int64_t n, T* __restrict to) {
  for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

// Rows of a piece, filled with zeros.
struct Rows {
  const float* data;
  int64_t stride;
};

int64_t whole_rows(const Cut& cut, const Piece& piece) { return up_to(piece.height, cut.block_rows); }

template <class T>
Rows read(const Cut& cut, const Piece& piece, const T* x, float* __restrict buffer) {
  const T* from = x + piece.first(cut);
  const int64_t stride = piece.row_stride(cut), rows = whole_rows(cut, piece);
  if constexpr (sizeof(T) == 4) {
    if (cut.inner == 1 && piece.padded == piece.width && rows == piece.height) return {from, stride};
  }
  if (piece.padded != piece.width || rows != piece.height) memset(buffer, 0, 4 * rows * piece.padded);
  if (cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) widen(from + r * stride, piece.width, buffer + r * piece.padded);
  } else {
    for (int64_t k = 0; k < piece.width; ++k) {
      for (int64_t r = 0; r < piece.height; ++r) buffer[r * piece.padded + k] = load(from[k * cut.inner + r]);
    }
  }
  return {buffer, piece.padded};
}

// Where a piece can be written as float32: in place, or in a buffer that `write` copies from.
template <class T>
float* place(const Cut& cut, const Piece& piece, T* y, float* buffer, int64_t* stride) {
  if constexpr (sizeof(T) == 4) {
    if (cut.inner == 1 && piece.padded == piece.width) {
      *stride = piece.row_stride(cut);
      return y + piece.first(cut);
    }
  }
  *stride = piece.padded;
  return buffer;
}

template <class T>
void write(const Cut& cut, const Piece& piece, const float* from, int64_t stride, T* y) {
  T* to = y + piece.first(cut);
  if (static_cast<const void*>(to) == from) return;
  if (cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) narrow(from + r * stride, piece.width, to + r * piece.row_stride(cut));
  } else {
    for (int64_t k = 0; k < piece.width; ++k) {
      for (int64_t r = 0; r < piece.height; ++r) store(to[k * cut.inner + r], from[r * stride + k]);
    }
  }
}

// Words first ... first + n - 1 of the stream of Philox4x32-10 (Salmon et al. 2011), without their two lowest bits.
void random_words(uint64_t first, int64_t n, const uint32_t seed[2], uint32_t* __restrict out) {
  for (uint64_t block = first / 4; block * 4 < first + n; block += kLanes) {
    uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      c0[i] = static_cast<uint32_t>(block + i), c1[i] = c2[i] = c3[i] = 0;
    }
    uint32_t k0 = seed[0], k1 = seed[1];
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
      for (int i = 0; i < kLanes; ++i) {
        const uint64_t a = static_cast<uint64_t>(c0[i]) * 0xD2511F53, b = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57;
        c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
        c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
        c1[i] = static_cast<uint32_t>(b);
        c3[i] = static_cast<uint32_t>(a);
      }
    }
    uint32_t words[4 * kLanes];
    for (int i = 0; i < kLanes; ++i) {
      words[4 * i] = c0[i] >> 2, words[4 * i + 1] = c1[i] >> 2, words[4 * i + 2] = c2[i] >> 2, words[4 * i + 3] = c3[i] >> 2;
    }
    const int64_t skipped = block * 4 < first ? static_cast<int64_t>(first - block * 4) : 0;
    const int64_t done = static_cast<int64_t>(block * 4 + skipped - first);
    memcpy(out + done, words + skipped, 4 * least(4 * kLanes - skipped, n - done));
  }
}

// Noise for a piece, in rows as `read` has them.
void draw(const Quantizing& q, const Piece& piece, uint32_t* __restrict noise) {
  const int64_t first = piece.first(q.cut);
  if (piece.padded != piece.width || whole_rows(q.cut, piece) != piece.height) {
    memset(noise, 0, 4 * whole_rows(q.cut, piece) * piece.padded);
  }
  if (q.cut.inner == 1) {
    for (int64_t r = 0; r < piece.height; ++r) {
      random_words(first + r * q.cut.columns, piece.width, q.quantizer.seed, noise + r * piece.padded);
    }
    return;
  }
  uint32_t column[kBuffer];
  for (int64_t k = 0; k < piece.width; ++k) {
    random_words(first + k * q.cut.inner, piece.height, q.quantizer.seed, column);
    for (int64_t r = 0; r < piece.height; ++r) noise[r * piece.padded + k] = column[r];
  }
}

// The bits of the largest magnitude. N: how many there are, where that is known.
template <int64_t N>
inline uint32_t largest_of(const float* __restrict x, int64_t n) {
  int32_t largest = 0;
#pragma GCC unroll 1
  for (int64_t i = 0; i < (N ? N : n); ++i) {
    const int32_t size = static_cast<int32_t>(bits_of(x[i]) & ~kSign);
    largest = size > largest ? size : largest;
  }
  return static_cast<uint32_t>(largest);
}

template <int64_t N>
void largest_of_blocks(const float* __restrict x, int64_t n, int64_t blocks, uint32_t* __restrict amax) {
  for (int64_t b = 0; b < blocks; ++b) {
    const uint32_t largest = largest_of<N>(x + b * (N ? N : n), n);
    amax[b] = largest > amax[b] ? largest : amax[b];
  }
}

// Of the blocks of `height` rows, each of n columns.
void find_largest(const Rows& x, int64_t height, int64_t n, int64_t blocks, uint32_t* __restrict amax) {
  memset(amax, 0, 4 * blocks);
  for (int64_t r = 0; r < height; ++r) {
    const float* row = x.data + r * x.stride;
    if (n == 16) {
      largest_of_blocks<16>(row, n, blocks, amax);
    } else if (n == 32) {
      largest_of_blocks<32>(row, n, blocks, amax);
    } else {
      largest_of_blocks<0>(row, n, blocks, amax);
    }
  }
}

template <class E, bool kDivide, bool kRandom>
inline void encode(const float* __restrict x, int64_t n, float factor, const uint32_t* __restrict noise,
                   uint8_t* __restrict codes) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<uint8_t>(code_of<E, kRandom>(kDivide ? x[i] / factor : x[i] * factor, kRandom ? noise[i] : 0));
  }
}

template <class E, bool kDivide, bool kRandom>
inline void round_trip(const float* __restrict x, int64_t n, float factor, float scale, const uint32_t* __restrict noise,
                       float* __restrict y) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) {
    y[i] = rounded<E, kRandom>(kDivide ? x[i] / factor : x[i] * factor, kRandom ? noise[i] : 0) * scale;
  }
}

template <class E>
inline void decode(const uint8_t* __restrict codes, int64_t n, float scale, float* __restrict y) {
#pragma GCC unroll 1
  for (int64_t i = 0; i < n; ++i) y[i] = value_of<E>(codes[i]) * scale;
}

// A row of blocks of n entries, N where that is known.
template <class E, bool kDivide, bool kRandom, int64_t N>
void encode_blocks(const float* __restrict x, int64_t n, int64_t blocks, const Scale* __restrict scales,
                   const uint32_t* __restrict noise, uint8_t* __restrict codes) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    if (scales[b].factor == 0) {
      memset(codes + b * size, 0, size);
    } else {
      encode<E, kDivide, kRandom>(x + b * size, size, scales[b].factor, noise + (kRandom ? b * size : 0), codes + b * size);
    }
  }
}

template <class E, bool kDivide, bool kRandom, int64_t N>
void round_trip_blocks(const float* __restrict x, int64_t n, int64_t blocks, bool exact, const Scale* __restrict scales,
                       const uint32_t* __restrict noise, float* __restrict y) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    float* to = y + b * size;
    const Scale& scale = scales[b];
    const bool small = !exact && scale.scale < kSmallScale;
    if (scale.factor == 0) {
      for (int64_t i = 0; i < size; ++i) to[i] = 0 * scale.scale;
      continue;
    }
    round_trip<E, kDivide, kRandom>(x + b * size, size, scale.factor, small ? 1 : scale.scale, noise + (kRandom ? b * size : 0),
                                    to);
    if (small) {
      for (int64_t i = 0; i < size; ++i) to[i] = product(to[i], scale.scale);
    }
  }
}

template <class E, int64_t N>
void decode_blocks(const uint8_t* __restrict codes, int64_t n, int64_t blocks, bool exact, const float* __restrict scales,
                   float* __restrict y) {
  const int64_t size = N ? N : n;
  for (int64_t b = 0; b < blocks; ++b) {
    const bool small = !exact && scales[b] < kSmallScale;
    decode<E>(codes + b * size, size, small ? 1 : scales[b], y + b * size);
    if (small) {
      for (int64_t i = 0; i < size; ++i) y[b * size + i] = product(y[b * size + i], scales[b]);
    }
  }
}

// Calls f with the size of a block as a type.
template <int64_t N>
struct Size {
  static constexpr int64_t value = N;
};
template <class Function>
void with_size(int64_t n, Function f) {
  if (n == 16) {
    f(Size<16>());
  } else if (n == 32) {
    f(Size<32>());
  } else {
    f(Size<0>());
  }
}

// Calls f with whether to divide, and whether to round at random, as types.
template <class E, class Function>
void with_options(const kl_quantizer& q, Function f) {
  const bool divide = E::kInteger && has_float32(q.rule);
  if constexpr (E::kInteger) {
    if (divide) {
      q.stochastic ? f(Size<1>(), Size<1>()) : f(Size<1>(), Size<0>());
      return;
    }
  }
  q.stochastic ? f(Size<0>(), Size<1>()) : f(Size<0>(), Size<0>());
}

void pack4(const uint8_t* __restrict codes, int64_t n, uint8_t* __restrict to) {
  for (int64_t i = 0; i < n / 2; ++i) {
    uint16_t pair;
    memcpy(&pair, codes + 2 * i, 2);
    to[i] = static_cast<uint8_t>(pair | pair >> 4);
  }
}

void unpack4(const uint8_t* __restrict packed, int64_t n, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const uint16_t pair = static_cast<uint16_t>((packed[i] & 15) | (packed[i] >> 4) << 8);
    memcpy(codes + 2 * i, &pair, 2);
  }
}

void pack6(const uint8_t* __restrict codes, int64_t n, uint8_t* __restrict to) {
  for (int64_t i = 0; i < n / 4; ++i) {
    const uint8_t* from = codes + 4 * i;
    const uint32_t word = from[0] | from[1] << 6 | from[2] << 12 | static_cast<uint32_t>(from[3]) << 18;
    to[3 * i] = static_cast<uint8_t>(word), to[3 * i + 1] = static_cast<uint8_t>(word >> 8);
    to[3 * i + 2] = static_cast<uint8_t>(word >> 16);
  }
}

void unpack6(const uint8_t* __restrict packed, int64_t n, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n / 4; ++i) {
    const uint32_t word = packed[3 * i] | packed[3 * i + 1] << 8 | packed[3 * i + 2] << 16;
    for (int j = 0; j < 4; ++j) codes[4 * i + j] = word >> (6 * j) & 63;
  }
}

template <class E>
void encode_row(const kl_quantizer& q, const float* x, int64_t n, int64_t blocks, const Scale* scales, const uint32_t* noise,
                uint8_t* codes) {
  uint8_t unpacked[kBuffer];
  uint8_t* to = E::kBits == 8 ? codes : unpacked;
  with_options<E>(q, [&](auto divide, auto random) {
    with_size(n, [&](auto size) {
      encode_blocks<E, decltype(divide)::value, decltype(random)::value, decltype(size)::value>(x, n, blocks, scales, noise,
                                                                                                to);
    });
  });
  if (E::kBits == 4) pack4(unpacked, n * blocks, codes);
  if (E::kBits == 6) pack6(unpacked, n * blocks, codes);
}

template <class E>
void round_trip_row(const kl_quantizer& q, const float* x, int64_t n, int64_t blocks, const Scale* scales,
                    const uint32_t* noise, float* y) {
  with_options<E>(q, [&](auto divide, auto random) {
    with_size(n, [&](auto size) {
      round_trip_blocks<E, decltype(divide)::value, decltype(random)::value, decltype(size)::value>(
          x, n, blocks, has_e8m0(q.rule), scales, noise, y);
    });
  });
}

template <class E>
void decode_row(int rule, const uint8_t* packed, int64_t n, int64_t blocks, const float* scales, float* y) {
  uint8_t unpacked[kBuffer];
  if (E::kBits == 4) unpack4(packed, n * blocks, unpacked);
  if (E::kBits == 6) unpack6(packed, n * blocks, unpacked);
  const uint8_t* codes = E::kBits == 8 ? packed : unpacked;
  with_size(n, [&](auto size) { decode_blocks<E, decltype(size)::value>(codes, n, blocks, has_e8m0(rule), scales, y); });
}

// The sum of rows x columns numbers, in the order of the plain path: halves of the rows are added, then of the columns.
float pairwise_sum(float* x, int64_t rows, int64_t columns) {
  for (int64_t half; rows > 1; rows -= half) {
    half = rows / 2;
    for (int64_t i = 0; i < half * columns; ++i) x[i] += x[half * columns + i];
    if (rows % 2) memmove(x + half * columns, x + 2 * half * columns, 4 * columns);
  }
  for (int64_t half; columns > 1; columns -= half) {
    half = columns / 2;
    for (int64_t i = 0; i < half; ++i) x[i] += x[half + i];
    if (columns % 2) x[half] = x[2 * half];
  }
  return x[0];
}

// The sum of absolute errors of a block in NVFP4.
float error_of(const Rows& x, int64_t rows, int64_t columns, const Scale& scale) {
  float errors[kBuffer];
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = x.data + r * x.stride;
    float* to = errors + r * columns;
    round_trip_blocks<E2M1, false, false, 0>(from, columns, 1, false, &scale, nullptr, to);
    for (int64_t i = 0; i < columns; ++i) to[i] = float_of(bits_of(to[i] - from[i]) & ~kSign);
  }
  return pairwise_sum(errors, rows, columns);
}

// The scales of a row of blocks.
template <class E>
void fit_blocks(const Quantizing& q, const Rows& x, int64_t height, int64_t n, int64_t blocks, Scale* scales) {
  uint32_t amax[kBlocks];
  find_largest(x, height, n, blocks, amax);
  const int rule = q.quantizer.rule;
  if (!is_nvfp4(rule)) {
    for (int64_t b = 0; b < blocks; ++b) scales[b] = fit<E>(rule, amax[b]);
    return;
  }
  const float per_six = q.tensor[0], tensor_scale = q.tensor[1];
  for (int64_t b = 0; b < blocks; ++b) {
    scales[b] = fit_nvfp4(amax[b], per_six, tensor_scale);
    if (rule == KL_FOUR_OVER_SIX && amax[b] < kInfinity) {
      const Scale other = fit_nvfp4(amax[b], product(per_six, 1.5f), tensor_scale);
      const Rows block = {x.data + b * n, x.stride};
      if (error_of(block, height, n, other) < error_of(block, height, n, scales[b])) scales[b] = other;
    }
  }
}

void store_scales(int rule, const Scale* scales, int64_t n, int64_t first, void* to) {
  for (int64_t b = 0; b < n; ++b) {
    if (has_float32(rule)) {
      static_cast<float*>(to)[first + b] = scales[b].scale;
    } else {
      static_cast<uint8_t*>(to)[first + b] = static_cast<uint8_t>(scales[b].byte);
    }
  }
}

int64_t code_bytes(const Cut& cut, int bits) { return up_to(cut.columns, cut.block_columns) * bits / 8; }

// Calls f(piece, row) for all pieces, and for parts of a row where it is one block.
template <class Function>
void each_part(const Cut& cut, int64_t begin, int64_t end, Function f) {
  each_piece(cut, begin, end, [&](int64_t other, int64_t row, int64_t column) {
    const int64_t last = cut.by_row ? cut.columns : column + 1;
    for (; column < last; column += cut.width) f(Piece(cut, other, row, column));
  });
}

// Calls f(piece, rows of numbers, first row, how many rows, blocks, entries of each a row, scales) for every row of blocks.
template <class E, class T, class Function>
void each_row_of_blocks(const Quantizing& q, const T* x, int64_t begin, int64_t end, Function f) {
  const Cut& cut = q.cut;
  float buffer[kBuffer];
  if (cut.whole) {
    const Scale scale = {q.tensor[0], q.tensor[1], 0};
    each_part(cut, begin, end, [&](const Piece& piece) {
      const Rows rows = read(cut, piece, x, buffer);
      for (int64_t r = 0; r < piece.height; ++r) f(piece, rows, r, 1, 1, piece.padded, &scale);
    });
    return;
  }
  if (!cut.by_row) {
    Scale scales[kBlocks];
    each_part(cut, begin, end, [&](const Piece& piece) {
      const Rows rows = read(cut, piece, x, buffer);
      const int64_t blocks = piece.padded / cut.block_columns;
      for (int64_t r = 0; r < piece.height; r += cut.block_rows) {
        const Rows own = {rows.data + r * rows.stride, rows.stride};
        fit_blocks<E>(q, own, cut.block_rows, cut.block_columns, blocks, scales);
        f(piece, rows, r, cut.block_rows, blocks, cut.block_columns, scales);
      }
    });
    return;
  }
  for (int64_t strip = begin; strip < end; ++strip) {
    uint32_t amax[kLanes] = {}, part[1];
    each_part(cut, strip, strip + 1, [&](const Piece& piece) {
      const Rows rows = read(cut, piece, x, buffer);
      for (int64_t r = 0; r < piece.height; ++r) {
        find_largest({rows.data + r * rows.stride, rows.stride}, 1, piece.padded, 1, part);
        amax[r] = part[0] > amax[r] ? part[0] : amax[r];
      }
    });
    Scale scales[kLanes];
    for (int64_t r = 0; r < cut.height; ++r) scales[r] = fit<E>(q.quantizer.rule, amax[r]);
    each_part(cut, strip, strip + 1, [&](const Piece& piece) {
      const Rows rows = read(cut, piece, x, buffer);
      for (int64_t r = 0; r < piece.height; ++r) f(piece, rows, r, 1, 1, piece.padded, scales + r);
    });
  }
}

template <class T>
uint32_t amax_of(const Quantizing& q, const T* x, int64_t begin, int64_t end) {
  const Cut& cut = q.cut;
  float buffer[kBuffer];
  uint32_t largest = 0, amax[kBlocks];
  each_part(cut, begin, end, [&](const Piece& piece) {
    const Rows rows = read(cut, piece, x, buffer);
    const int64_t n = cut.whole ? piece.padded : cut.block_columns, blocks = piece.padded / n;
    for (int64_t r = 0; r < piece.height; r += cut.block_rows) {
      find_largest({rows.data + r * rows.stride, rows.stride}, cut.block_rows, n, blocks, amax);
      for (int64_t b = 0; b < blocks; ++b) {
        const bool counts = cut.whole || amax[b] < kInfinity;  // in NVFP4, blocks with NaN or infinity have no say
        largest = counts && amax[b] > largest ? amax[b] : largest;
      }
    }
  });
  return largest;
}

template <class E, class T>
void quantize_pieces(const Quantizing& q, const T* x, int64_t begin, int64_t end, uint8_t* codes, void* scales_to) {
  const Cut& cut = q.cut;
  const int64_t bytes = code_bytes(cut, E::kBits), scale_columns = up_to(cut.columns, cut.block_columns) / cut.block_columns;
  uint32_t noise[kBuffer];
  each_row_of_blocks<E>(
      q, x, begin, end,
      [&](const Piece& piece, const Rows& rows, int64_t r, int64_t height, int64_t blocks, int64_t n, const Scale* scales) {
        if (q.quantizer.stochastic && r == 0) draw(q, piece, noise);
        for (int64_t i = r; i < r + height; ++i) {
          uint8_t* to = codes + (piece.code_row(cut) + i) * bytes + piece.column * E::kBits / 8;
          encode_row<E>(q.quantizer, rows.data + i * rows.stride, n, blocks, scales, noise + i * piece.padded, to);
        }
        if (cut.whole) return;
        const int64_t row = piece.block_row(cut) + r / cut.block_rows;
        const int64_t first = cut.by_row ? row : row * scale_columns + piece.column / cut.block_columns;
        store_scales(q.quantizer.rule, scales, blocks, first, scales_to);
      });
  // All chunks would write the same: the one that has the first piece does.
  if (cut.whole && begin == 0 && end > 0) static_cast<float*>(scales_to)[0] = q.tensor[1];
}

template <class E, class T>
void fake_pieces(const Quantizing& q, const T* x, int64_t begin, int64_t end, T* y) {
  const Cut& cut = q.cut;
  uint32_t noise[kBuffer];
  float buffer[kBuffer];
  each_row_of_blocks<E>(
      q, x, begin, end,
      [&](const Piece& piece, const Rows& rows, int64_t r, int64_t height, int64_t blocks, int64_t n, const Scale* scales) {
        if (q.quantizer.stochastic && r == 0) draw(q, piece, noise);
        int64_t stride;
        float* to = place(cut, piece, y, buffer, &stride);
        for (int64_t i = r; i < least(r + height, piece.height); ++i) {
          round_trip_row<E>(q.quantizer, rows.data + i * rows.stride, n, blocks, scales, noise + i * piece.padded,
                            to + i * stride);
        }
        if (r + height >= piece.height) write(cut, piece, to, stride, y);
      });
}

template <class E, class T>
void dequantize_pieces(const Quantizing& q, const uint8_t* codes, const void* stored, int64_t begin, int64_t end, T* y) {
  const Cut& cut = q.cut;
  const int rule = q.quantizer.rule;
  const int64_t bytes = code_bytes(cut, E::kBits), scale_columns = up_to(cut.columns, cut.block_columns) / cut.block_columns;
  float buffer[kBuffer], scales[kBlocks];
  each_part(cut, begin, end, [&](const Piece& piece) {
    const bool one = cut.whole || cut.by_row;
    const int64_t n = one ? piece.padded : cut.block_columns, blocks = piece.padded / n;
    int64_t stride;
    float* to = place(cut, piece, y, buffer, &stride);
    for (int64_t r = 0; r < piece.height; ++r) {
      const int64_t row = piece.block_row(cut) + r / cut.block_rows;
      const int64_t first = cut.whole ? 0 : cut.by_row ? row : row * scale_columns + piece.column / n;
      if (r % cut.block_rows == 0) {
        for (int64_t b = 0; b < blocks; ++b) scales[b] = stored_scale(rule, stored, first + b, q.tensor);
      }
      const uint8_t* from = codes + (piece.code_row(cut) + r) * bytes + piece.column * E::kBits / 8;
      decode_row<E>(rule, from, n, blocks, scales, to + r * stride);
    }
    write(cut, piece, to, stride, y);
  });
}

uint32_t amax(const Quantizing& q, const void* x, int64_t begin, int64_t end) {
  if (q.quantizer.dtype == KL_X_FLOAT32) return amax_of(q, static_cast<const float*>(x), begin, end);
  return amax_of(q, static_cast<const bfloat16*>(x), begin, end);
}

template <class E>
void fit_tensor(int rule, uint32_t amax, float tensor[2]) {
  if (is_nvfp4(rule)) {
    fit_nvfp4_tensor(rule, amax, tensor);
  } else {
    const Scale scale = fit<E>(rule, amax);
    tensor[0] = scale.factor, tensor[1] = scale.scale;
  }
}

template <class E>
void quantize(const Quantizing& q, const void* x, int64_t begin, int64_t end, uint8_t* codes, void* scales) {
  if (q.quantizer.dtype == KL_X_FLOAT32) {
    quantize_pieces<E>(q, static_cast<const float*>(x), begin, end, codes, scales);
  } else {
    quantize_pieces<E>(q, static_cast<const bfloat16*>(x), begin, end, codes, scales);
  }
}

template <class E>
void fake(const Quantizing& q, const void* x, int64_t begin, int64_t end, void* y) {
  if (q.quantizer.dtype == KL_X_FLOAT32) {
    fake_pieces<E>(q, static_cast<const float*>(x), begin, end, static_cast<float*>(y));
  } else {
    fake_pieces<E>(q, static_cast<const bfloat16*>(x), begin, end, static_cast<bfloat16*>(y));
  }
}

template <class E>
void dequantize(const Quantizing& q, const uint8_t* codes, const void* scales, int64_t begin, int64_t end, void* y) {
  dequantize_pieces<E>(q, codes, scales, begin, end, static_cast<float*>(y));
}

template <class E>
constexpr Elements row() {
  return {amax, fit_tensor<E>, quantize<E>, fake<E>, dequantize<E>};
}

}  // namespace

const Elements quantizers[KL_ELEMENTS] = {row<E4M3>(), row<E5M2>(),   row<E2M3>(), row<E3M2>(),
                                          row<E2M1>(), row<Fixed8>(), row<Int8>(), row<Int4>()};

}  // namespace KL_ISA
}  // namespace kl
