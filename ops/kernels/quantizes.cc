// Loops over pieces of a tensor, compiled once for each instruction set: KL_ISA names the one that the flags select.
//
// A piece is read into float32 rows of whole blocks, unless it lies so in memory; the same for what is written.
#include <string.h>

#include "quantize_rows.h"

namespace kl {
namespace KL_ISA {
namespace {

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
// Calls f(piece, rows of numbers, first row, how many rows, blocks, entries of each a row, scales) for every row of blocks.
template <class E, class T, class Function>
void each_row_of_blocks(const Quantizing& q, const T* x, int64_t begin, int64_t end, Function f) {
  const Cut& cut = q.cut;
  float buffer[kBuffer];
  if (cut.whole) {
    const Scale scale = {q.tensor[0], q.tensor[1], 0};
    each_part(cut, begin, end, [&](const Piece& piece) {
      const Rows rows = read(q, piece, x, buffer);
      for (int64_t r = 0; r < piece.height; ++r) f(piece, rows, r, 1, 1, piece.padded, &scale);
    });
    return;
  }
  if (!cut.by_row) {
    Scale scales[kBlocks];
    each_part(cut, begin, end, [&](const Piece& piece) {
      const Rows rows = read(q, piece, x, buffer);
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
      const Rows rows = read(q, piece, x, buffer);
      for (int64_t r = 0; r < piece.height; ++r) {
        find_largest({rows.data + r * rows.stride, rows.stride}, 1, piece.padded, 1, part);
        amax[r] = part[0] > amax[r] ? part[0] : amax[r];
      }
    });
    Scale scales[kLanes];
    for (int64_t r = 0; r < cut.height; ++r) scales[r] = fit<E>(q.quantizer.rule, amax[r]);
    each_part(cut, strip, strip + 1, [&](const Piece& piece) {
      const Rows rows = read(q, piece, x, buffer);
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
    const Rows rows = read(q, piece, x, buffer);
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