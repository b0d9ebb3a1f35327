// Loops over pieces of a tensor, compiled once for each instruction set: KLR_ISA names the one that the flags select.
#include <string.h>

#include "quantize_fit.h"

namespace klr {
namespace KLR_ISA {
namespace {

int64_t code_bytes(const Cut& cut, int bits) { return up_to(cut.columns, cut.block_columns) * bits / 8; }

// Largest magnitudes of the rows of a strip, each of which is one block.
template <class In, class T>
void find_largest_of_strip(const Quantizing& q, const T* x, int64_t strip, uint32_t* amax) {
  float buffer[kBuffer];
  uint32_t part[kTile];
  memset(amax, 0, 4 * kTile);
  each_part(q.cut, strip, strip + 1, [&](const Piece& piece) {
    const In in(q.cut, piece);
    in.find_largest(in.read(q.quantizer, x, buffer), part);
    for (int64_t i = 0; i < in.scales; ++i) amax[i] = part[i] > amax[i] ? part[i] : amax[i];
  });
}

// Calls f(piece, its numbers, its scales) for every piece.
template <class In, class E, class T, class Function>
void each_fitted_piece(const Quantizing& q, const T* x, int64_t begin, int64_t end, Function f) {
  const Cut& cut = q.cut;
  float buffer[kBuffer];
  uint32_t amax[kScales];
  Scale scales[kScales];
  if (cut.whole) {
    for (int64_t i = 0; i < cut.height; ++i) scales[i] = {q.tensor[0], q.tensor[1], 0};
  }
  for (int64_t strip = begin; strip < end; ++strip) {
    if (cut.by_row) {
      find_largest_of_strip<In>(q, x, strip, amax);
      fit_each<E, AllNumbers>(q.quantizer.rule, amax, cut.height, scales);
    }
    each_part(cut, strip, strip + 1, [&](const Piece& piece) {
      const In in(cut, piece);
      const float* numbers = in.read(q.quantizer, x, buffer);
      if (!cut.whole && !cut.by_row) {
        in.find_largest(numbers, amax);
        fit_blocks<E>(q, in, numbers, amax, scales);
      }
      f(in, numbers, scales);
    });
  }
}

template <class E, class In>
void divide(const klr_quantizer& q, const In& in, const float* x, const Scale* scales, float* units) {
  E::kInteger&& has_float32(q.rule) ? in.template divide<E::kInteger>(x, scales, units)
                                    : in.template divide<false>(x, scales, units);
}

template <class In, class E, class T>
void quantize_pieces(const Quantizing& q, const T* x, int64_t begin, int64_t end, uint8_t* codes, void* stored) {
  const int64_t bytes = code_bytes(q.cut, E::kBits);
  const int rule = q.quantizer.rule;
  float units[kBuffer];
  uint32_t noise[kBuffer];
  uint8_t own[kBuffer];
  each_fitted_piece<In, E>(q, x, begin, end, [&](const In& in, const float* numbers, const Scale* scales) {
    divide<E>(q.quantizer, in, numbers, scales, units);
    if (q.quantizer.stochastic) in.draw(q.quantizer.seed, noise);
    q.quantizer.stochastic ? encode<E, true>(units, in.entries, noise, own) : encode<E, false>(units, in.entries, noise, own);
    in.put(E::kBits, own, codes, bytes);
    if (q.cut.whole) return;
    in.each_scale([&](int64_t i, int64_t to) {
      if (has_float32(rule)) {
        static_cast<float*>(stored)[to] = scales[i].scale;
      } else {
        static_cast<uint8_t*>(stored)[to] = static_cast<uint8_t>(scales[i].byte);
      }
    });
  });
  // All chunks would write the same: the one that has the first piece does.
  if (q.cut.whole && begin == 0 && end > 0) static_cast<float*>(stored)[0] = q.tensor[1];
}

template <class In, class E, class T>
void fake_pieces(const Quantizing& q, const T* x, int64_t begin, int64_t end, T* y) {
  float units[kBuffer];
  uint32_t noise[kBuffer];
  each_fitted_piece<In, E>(q, x, begin, end, [&](const In& in, const float* numbers, const Scale* scales) {
    divide<E>(q.quantizer, in, numbers, scales, units);
    if (q.quantizer.stochastic) in.draw(q.quantizer.seed, noise);
    q.quantizer.stochastic ? round<E, true>(units, in.entries, noise) : round<E, false>(units, in.entries, noise);
    float* values = in.place(y, units);
    in.multiply(units, has_e8m0(q.quantizer.rule), scales, values);
    in.write(values, y);
  });
}

template <class In, class E, class T>
void dequantize_pieces(const Quantizing& q, const uint8_t* codes, const void* stored, int64_t begin, int64_t end, T* y) {
  const int64_t bytes = code_bytes(q.cut, E::kBits);
  const int rule = q.quantizer.rule;
  float units[kBuffer];
  uint8_t own[kBuffer];
  uint32_t raw[kScales];
  Scale scales[kScales];
  each_part(q.cut, begin, end, [&](const Piece& piece) {
    const In in(q.cut, piece);
    in.each_scale([&](int64_t i, int64_t from) { raw[i] = raw_scale(rule, stored, from); });
    find_scales(rule, raw, in.scales, q.tensor, scales);
    in.get(E::kBits, codes, bytes, own);
    decode<E>(own, in.entries, units);
    float* values = in.place(y, units);
    in.multiply(units, has_e8m0(rule), scales, values);
    in.write(values, y);
  });
}

template <class In, class T>
uint32_t amax_of(const Quantizing& q, const T* x, int64_t begin, int64_t end) {
  float buffer[kBuffer];
  uint32_t largest = 0, amax[kScales];
  each_part(q.cut, begin, end, [&](const Piece& piece) {
    const In in(q.cut, piece);
    const float* numbers = in.read(q.quantizer, x, buffer);
    const uint32_t all = largest_of(numbers, in.entries);
    if (q.cut.whole || all < kInfinity) {
      largest = all > largest ? all : largest;
      return;
    }
    in.find_largest(numbers, amax);  // in NVFP4, blocks with NaN or infinity do not count
    for (int64_t i = 0; i < in.scales; ++i) largest = amax[i] < kInfinity && amax[i] > largest ? amax[i] : largest;
  });
  return largest;
}

template <class In>
uint32_t amax_in(const Quantizing& q, const void* x, int64_t begin, int64_t end) {
  if (q.quantizer.dtype == KLR_X_FLOAT32) return amax_of<In>(q, static_cast<const float*>(x), begin, end);
  return amax_of<In>(q, static_cast<const bfloat16*>(x), begin, end);
}

uint32_t amax(const Quantizing& q, const void* x, int64_t begin, int64_t end) {
  return q.cut.inner == 1 ? amax_in<InRows>(q, x, begin, end) : amax_in<InLines>(q, x, begin, end);
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

template <class In, class E>
void quantize_in(const Quantizing& q, const void* x, int64_t begin, int64_t end, uint8_t* codes, void* scales) {
  if (q.quantizer.dtype == KLR_X_FLOAT32) {
    quantize_pieces<In, E>(q, static_cast<const float*>(x), begin, end, codes, scales);
  } else {
    quantize_pieces<In, E>(q, static_cast<const bfloat16*>(x), begin, end, codes, scales);
  }
}

template <class E>
void quantize(const Quantizing& q, const void* x, int64_t begin, int64_t end, uint8_t* codes, void* scales) {
  q.cut.inner == 1 ? quantize_in<InRows, E>(q, x, begin, end, codes, scales)
                   : quantize_in<InLines, E>(q, x, begin, end, codes, scales);
}

template <class In, class E>
void fake_in(const Quantizing& q, const void* x, int64_t begin, int64_t end, void* y) {
  if (q.quantizer.dtype == KLR_X_FLOAT32) {
    fake_pieces<In, E>(q, static_cast<const float*>(x), begin, end, static_cast<float*>(y));
  } else {
    fake_pieces<In, E>(q, static_cast<const bfloat16*>(x), begin, end, static_cast<bfloat16*>(y));
  }
}

template <class E>
void fake(const Quantizing& q, const void* x, int64_t begin, int64_t end, void* y) {
  q.cut.inner == 1 ? fake_in<InRows, E>(q, x, begin, end, y) : fake_in<InLines, E>(q, x, begin, end, y);
}

template <class E>
void dequantize(const Quantizing& q, const uint8_t* codes, const void* scales, int64_t begin, int64_t end, void* y) {
  q.cut.inner == 1 ? dequantize_pieces<InRows, E>(q, codes, scales, begin, end, static_cast<float*>(y))
                   : dequantize_pieces<InLines, E>(q, codes, scales, begin, end, static_cast<float*>(y));
}

template <class E>
constexpr Elements row() {
  return {amax, fit_tensor<E>, quantize<E>, fake<E>, dequantize<E>};
}

}  // namespace

#define KLR_ROW(ID, ...) row<ID>(),
const Elements quantizers[KLR_ELEMENTS] = {KLR_QUANTIZER_ELEMENTS(KLR_ROW)};
#undef KLR_ROW

}  // namespace KLR_ISA
}  // namespace klr