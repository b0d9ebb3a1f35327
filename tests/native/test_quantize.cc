// Tests of quantization that need no Python: run by `make test-native`, with the sanitizers of the compiler.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../../ops/kernels/quantize.h"
#include "../../ops/kernels/quantize_table.h"

#define KLR_ISA baseline
#include "../../ops/kernels/quantize_elements.h"
#include "fingerprint.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

namespace {

klr_quantizer quantizer(int element, int rule, int64_t block_rows, int64_t block_columns, const int64_t shape[3]) {
  klr_quantizer q = {};
  q.outer = shape[0], q.columns = shape[1], q.inner = shape[2];
  q.rows = shape[2] > 1 ? shape[2] : shape[0];
  q.block_rows = block_rows, q.block_columns = block_columns;
  q.element = element, q.rule = rule;
  q.seed[0] = 7, q.seed[1] = 9;
  return q;
}

// Every element, in blocks, rows, squares and as a whole, of shapes with and without tails.
std::vector<klr_quantizer> all() {
  const int64_t shapes[][3] = {{1, 1, 1}, {5, 70, 1}, {3, 256, 1}, {2, 35, 20}, {1, 41, 1}, {40, 3000, 1}, {1, 200000, 1}};
  std::vector<klr_quantizer> made;
  for (const auto& shape : shapes) {
    for (int element = 0; element < KLR_ELEMENTS; ++element) {
      made.push_back(quantizer(element, KLR_FLOOR, 1, 32, shape));
      made.push_back(quantizer(element, KLR_RCEIL, 4, 20, shape));
      made.push_back(quantizer(element, KLR_EXACT, 0, 0, shape));
      made.push_back(quantizer(element, KLR_EXACT, 1, 0, shape));
      made.push_back(quantizer(element, KLR_POWER_OF_TWO, 1, 128, shape));
      made.push_back(quantizer(element, KLR_EXACT, 32, 32, shape));
    }
    made.push_back(quantizer(KLR_E2M1, KLR_SIX, 1, 16, shape));
    made.push_back(quantizer(KLR_E2M1, KLR_FOUR_OVER_SIX, 16, 16, shape));
  }
  for (size_t i = 0; i < made.size(); ++i) {
    made[i].dtype = i % 3 == 0 ? KLR_X_BFLOAT16 : KLR_X_FLOAT32;
    made[i].stochastic = i % 2;
  }
  return made;
}

// The signs of a transform, all of which begin alike.
const float* signs() {
  static const std::vector<float> made = [] {
    std::vector<float> x(128);
    for (int i = 0; i < 128; ++i) x[i] = i % 3 == 0 || i % 7 == 2 ? -1.0f : 1.0f;
    return x;
  }();
  return made.data();
}

// With a transform of each size before, in blocks that are smaller, larger, of the same size, and that do not fit it.
std::vector<klr_quantizer> rotated() {
  const int64_t shapes[][3] = {{5, 128, 1}, {37, 384, 1}, {2, 256, 21}, {1, 3968, 40}, {3, 20096, 1}};
  std::vector<klr_quantizer> made;
  for (const auto& shape : shapes) {
    made.push_back(quantizer(KLR_E2M1, KLR_SIX, 1, 16, shape));
    made.push_back(quantizer(KLR_E2M1, KLR_FOUR_OVER_SIX, 16, 16, shape));
    made.push_back(quantizer(KLR_E2M1, KLR_FLOOR, 1, 32, shape));
    made.push_back(quantizer(KLR_E4M3, KLR_EXACT, 0, 0, shape));
    made.push_back(quantizer(KLR_INT8, KLR_EXACT, 1, 0, shape));
    made.push_back(quantizer(KLR_INT4, KLR_EXACT, 1, 6, shape));
    made.push_back(quantizer(KLR_E2M3, KLR_POWER_OF_TWO, 1, 128, shape));
  }
  for (size_t i = 0; i < made.size(); ++i) {
    made[i].dtype = i % 4 == 0 ? KLR_X_BFLOAT16 : KLR_X_FLOAT32;
    made[i].stochastic = i % 2;
    made[i].hadamard = i % 3 == 0 ? 16 : i % 3 == 1 ? 32 : 128;
    made[i].signs = signs();
  }
  return made;
}

// Numbers in an exactly sized allocation, so that a sanitizer sees what lies beyond.
std::vector<uint8_t> numbers(const klr_quantizer& q) {
  const int64_t size = q.outer * q.columns * q.inner;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(size);
  for (int64_t i = 0; i < size; ++i) x[i] = i % 1001 == 1000 ? NAN : std::ldexp(normal(random), static_cast<int>(i % 97) - 48);
  if (q.dtype == KLR_X_FLOAT32) {
    std::vector<uint8_t> bytes(4 * size);
    std::memcpy(bytes.data(), x.data(), bytes.size());
    return bytes;
  }
  std::vector<uint8_t> bytes(2 * size);
  for (int64_t i = 0; i < size; ++i) std::memcpy(&bytes[2 * i], reinterpret_cast<const uint8_t*>(&x[i]) + 2, 2);
  return bytes;
}

struct Results {
  std::vector<uint8_t> codes, scales, values, fake;
  bool operator==(const Results& other) const {
    return codes == other.codes && scales == other.scales && values == other.values && fake == other.fake;
  }
};

// In `parts` pieces, the last one first, as threads might come.
Results run(const klr_quantizer& q, int parts, const std::vector<uint8_t>& x) {
  CHECK(klr_quantize_valid(&q));
  klr_stored stored;
  klr_quantize_stored(&q, &stored);
  Results r;
  r.codes.resize(stored.code_rows * stored.code_bytes);
  r.scales.resize(stored.scale_rows * stored.scale_columns * stored.scale_bytes);
  r.values.resize(4 * q.outer * q.columns * q.inner);
  r.fake.resize(x.size());
  const int64_t chunks = klr_quantize_chunks(&q);
  const auto each = [&](auto f) {
    for (int part = parts - 1; part >= 0; --part) f(chunks * part / parts, chunks * (part + 1) / parts);
  };
  float tensor[2] = {1, 1};
  if (klr_quantize_phases(&q) == 2) {
    std::vector<uint32_t> amax(chunks);
    each([&](int64_t begin, int64_t end) { klr_quantize_amax(&q, x.data(), begin, end, amax.data()); });
    klr_quantize_fit(&q, amax.data(), tensor);
  }
  each([&](int64_t begin, int64_t end) { klr_quantize(&q, x.data(), tensor, begin, end, r.codes.data(), r.scales.data()); });
  each([&](int64_t begin, int64_t end) { klr_fake_quantize(&q, x.data(), tensor, begin, end, r.fake.data()); });
  each([&](int64_t begin, int64_t end) {
    klr_dequantize(&q, r.codes.data(), r.scales.data(), tensor + 1, begin, end, r.values.data());
  });
  return r;
}

Results run(const klr_quantizer& q, int parts) { return run(q, parts, numbers(q)); }

void any_split_gives_the_same_bits() {
  Fingerprint fingerprint;
  for (const auto& quantizers : {all(), rotated()}) {
    for (const klr_quantizer& q : quantizers) {
      const Results one = run(q, 1);
      CHECK(one == run(q, 2) && one == run(q, 5));
      fingerprint.add(one.codes), fingerprint.add(one.scales);
    }
  }
  fingerprint.print();
}

// A group of numbers that are `stride` apart, as its formula says.
void rotate(int size, int64_t stride, const float* signs, float* x) {
  for (int i = 0; i < size; ++i) x[i * stride] = (std::fabs(x[i * stride]) < 0x1p-98f ? 0 : x[i * stride]) * signs[i];
  for (int step = 1; step < size; step *= 2) {
    for (int i = 0; i < size; ++i) {
      if (i & step) continue;
      float &left = x[i * stride], &right = x[(i + step) * stride];
      const float sum = left + right, difference = left - right;
      left = sum, right = difference;
    }
  }
  for (int i = 0; i < size; ++i) {
    float& y = x[i * stride];
    y *= static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
    if (std::isnan(y)) y = __builtin_nanf("");
  }
}

void one_pass_with_a_transform_is_two() {
  for (const klr_quantizer& q : rotated()) {
    const int64_t size = q.outer * q.columns * q.inner;
    const std::vector<uint8_t> x = numbers(q);
    std::vector<float> y(size);
    for (int64_t i = 0; i < size; ++i) {
      const int bytes = q.dtype == KLR_X_FLOAT32 ? 4 : 2;
      std::memcpy(reinterpret_cast<uint8_t*>(&y[i]) + 4 - bytes, &x[i * bytes], bytes);
    }
    for (int64_t o = 0; o < q.outer; ++o) {
      for (int64_t k = 0; k < q.columns; k += q.hadamard) {
        for (int64_t i = 0; i < q.inner; ++i) rotate(q.hadamard, q.inner, q.signs, &y[(o * q.columns + k) * q.inner + i]);
      }
    }
    klr_quantizer plain = q;
    plain.hadamard = 0, plain.dtype = KLR_X_FLOAT32;
    std::vector<uint8_t> bytes(4 * size);
    std::memcpy(bytes.data(), y.data(), bytes.size());
    const Results one = run(q, 3), two = run(plain, 1, bytes);
    CHECK(one.codes == two.codes && one.scales == two.scales && one.values == two.values);
    CHECK(q.dtype != KLR_X_FLOAT32 || one.fake == two.fake);
  }
}

// What `fake` writes is what the codes stand for.
void one_pass_is_two() {
  for (const klr_quantizer& q : all()) {
    if (q.dtype != KLR_X_FLOAT32) continue;
    const Results r = run(q, 1);
    for (size_t i = 0; i < r.fake.size(); i += 4) {
      float one, two;
      std::memcpy(&one, &r.fake[i], 4), std::memcpy(&two, &r.values[i], 4);
      CHECK(std::memcmp(&one, &two, 4) == 0 || (std::isnan(one) && std::isnan(two)));
    }
  }
}

// All codes of a type: their values are theirs again.
template <class E>
void codes_and_values() {
  using namespace klr::baseline;
  for (uint32_t code = 0; code < 2 * E::kHalf; ++code) {
    const float x = value_of<E>(code);
    const uint32_t again = code_of<E, false>(x, 0);
    if (std::isnan(x)) {
      CHECK((again & (E::kHalf - 1)) == E::kNan);
    } else if (std::isinf(x) || (E::kInteger && code == E::kHalf)) {
      CHECK((again & (E::kHalf - 1)) == (E::kInteger ? 1 : E::kMaxCode));  // the nearest that is finite, and has its opposite
    } else {
      CHECK(again == code);
      CHECK((rounded<E, false>(x, 0) == x && std::signbit(rounded<E, false>(x, 0)) == std::signbit(x)));
      CHECK((code_of<E, true>(x, 0) == code && code_of<E, true>(x, (1 << 30) - 1) == code));
    }
  }
}

// Halves go to even codes, and what is a little more to the next.
template <class E>
void ties_go_to_even() {
  using namespace klr::baseline;
  for (uint32_t code = 0; code < E::kMaxCode; ++code) {
    const float middle = (value_of<E>(code) + value_of<E>(code + 1)) / 2;
    CHECK((code_of<E, false>(middle, 0) == code + code % 2));
    CHECK((code_of<E, false>(std::nextafter(middle, 1e9f), 0) == code + 1));
    CHECK((code_of<E, false>(std::nextafter(middle, 0.0f), 0) == code));
  }
}

template <class E>
void element() {
  codes_and_values<E>();
  ties_go_to_even<E>();
}

// The same product as in double precision, except that it is rounded twice below 2^-126.
void products_are_rounded_as_documented() {
  using namespace klr::baseline;
  CHECK(product(3.0f, 0.1f) == 3.0f * 0.1f);
  CHECK(product(1e30f, 1e30f) == INFINITY);
  CHECK(std::isnan(product(0, INFINITY)));
  const float x = 0x1.000002p-126f, y = 0x1.fffffep-2f;  // to 24 bits 2^-127, which is exact, though x y is above it
  CHECK(product(x, y) == static_cast<float>(static_cast<double>(static_cast<float>(0x1.000002p0 * 0x1.fffffep-1)) * 0x1p-127));
}

void instruction_sets_give_the_same_bits() {
#ifdef KLR_X86
  for (const klr_quantizer& q : all()) {
    if (q.outer * q.columns * q.inner > 2000 || klr_quantize_phases(&q) == 2 || q.block_columns == 0) continue;
    klr::Cut cut = {};
    cut.others = q.block_rows > 1 ? q.outer * q.inner / q.rows : q.inner > 1 ? q.outer : 1;
    cut.rows = q.outer * q.inner / cut.others, cut.columns = q.columns, cut.inner = q.inner;
    cut.block_rows = q.block_rows, cut.block_columns = q.block_columns;
    cut.height = q.block_rows, cut.width = q.block_columns;
    cut.strips = (cut.rows + cut.height - 1) / cut.height, cut.segments = (cut.columns + cut.width - 1) / cut.width;
    const klr::Quantizing all_of_it = {q, cut, nullptr};
    const std::vector<uint8_t> x = numbers(q);
    const auto fake = [&](const klr::Elements* table) {
      std::vector<uint8_t> y(x.size());
      table[q.element].fake(all_of_it, x.data(), 0, cut.others * cut.strips * cut.segments, y.data());
      return y;
    };
    const std::vector<uint8_t> y = fake(klr::baseline::quantizers);
    if (__builtin_cpu_supports("avx2")) CHECK(fake(klr::avx2::quantizers) == y);
    if (!std::strcmp(klr_quantize_instruction_set(), "avx512")) CHECK(fake(klr::avx512::quantizers) == y);
  }
#endif
}

void what_has_no_kernel_is_refused() {
  const int64_t shape[3] = {4, 64, 1};
  const klr_quantizer good = quantizer(KLR_E2M1, KLR_SIX, 1, 16, shape);
  CHECK(klr_quantize_valid(&good));
  klr_quantizer q = good;
  q.element = KLR_E4M3;  // NVFP4 is for E2M1
  CHECK(!klr_quantize_valid(&q));
  q = good, q.block_columns = 15;  // half a byte
  CHECK(!klr_quantize_valid(&q));
  q = good, q.block_rows = 16, q.rows = 3;  // does not divide the rows
  CHECK(!klr_quantize_valid(&q));
  q = good, q.block_rows = 0;  // one E4M3 scale for all
  CHECK(!klr_quantize_valid(&q));
  q = good, q.block_columns = 2 * KLR_LARGEST_BLOCK;
  CHECK(!klr_quantize_valid(&q));
  q = good, q.hadamard = 64, q.signs = signs();  // there is no such transform
  CHECK(!klr_quantize_valid(&q));
  q.hadamard = 128;  // does not divide the axis
  CHECK(!klr_quantize_valid(&q));
  q.hadamard = 32;
  CHECK(klr_quantize_valid(&q));
  q = good, q.outer = 0;
  CHECK(!klr_quantize_valid(&q));
}

}  // namespace

int main() {
  using namespace klr::baseline;
#define KLR_TEST(ID, ...) element<ID>();
  KLR_QUANTIZER_ELEMENTS(KLR_TEST)
  products_are_rounded_as_documented();
  any_split_gives_the_same_bits();
  one_pass_is_two();
  one_pass_with_a_transform_is_two();
  instruction_sets_give_the_same_bits();
  what_has_no_kernel_is_refused();
  std::printf("quantize: all hold (%s)\n", klr_quantize_instruction_set());
}
