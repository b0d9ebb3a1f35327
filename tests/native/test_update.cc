// Tests of ops/kernels that need no Python: run by `make test-native`, with the sanitizers of the compiler.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../../ops/kernels/update.h"

#define KLR_ISA baseline
#include "../../ops/kernels/dtypes.h"
#include "../../ops/kernels/dynamic_map.h"
#include "../../ops/kernels/philox.h"
#include "../../ops/kernels/range_expansion.h"
#include "../../ops/kernels/update_table.h"
#include "fingerprint.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

namespace {

const std::vector<int64_t> kSizes = {1, 0, 17, 4096, KLR_CHUNK - 1, KLR_CHUNK, 2 * KLR_CHUNK + 131};

// Variables, gradients and state of kSizes, in exactly sized allocations, so that a sanitizer sees what lies beyond.
struct Problem {
  std::vector<std::vector<float>> w, g, m, v;
  std::vector<std::vector<uint16_t>> narrow;
  std::vector<std::vector<uint8_t>> parts;  // of a code
  std::vector<klr_tensor> tensors;

  explicit Problem(bool bfloat16, klr_code code = KLR_NO_CODE, int64_t code_block = 0) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto values = [&](int64_t size) {
      std::vector<float> all(size);
      for (float& x : all) x = normal(random);
      return all;
    };
    const size_t n = kSizes.size();
    w.reserve(n), g.reserve(n), m.reserve(n), v.reserve(n), narrow.reserve(n), parts.reserve(KLR_MAX_SLOTS * KLR_MAX_PARTS * n);
    for (size_t t = 0; t < n; ++t) {
      const int64_t size = kSizes[t];
      w.push_back(values(size)), g.push_back(values(size)), m.push_back(values(size)), v.push_back(values(size));
      for (float& x : v.back()) x = std::fabs(x);
      narrow.emplace_back(size);
      for (int64_t i = 0; i < size; ++i) narrow.back()[i] = static_cast<uint16_t>(klr::baseline::bits_of(w.back()[i]) >> 16);
      void* variable = bfloat16 ? static_cast<void*>(narrow[t].data()) : w[t].data();
      tensors.push_back({variable,
                         g[t].data(),
                         {m[t].data(), v[t].data()},
                         size,
                         bfloat16,
                         KLR_FLOAT32,
                         0.01f,
                         0.1f,
                         t % 2 == 0,
                         static_cast<int32_t>(t),
                         size,
                         1,
                         {},
                         code_block,
                         code});
      for (int slot = 0; slot < 2 && code != KLR_NO_CODE; ++slot) {
        tensors.back().slots[slot] = nullptr;
        for (int part = 0; part < klr_parts(code); ++part) {
          const int dtype = klr_part_dtype(code, part);
          tensors.back().parts[slot][part] = add_part(dtype, part == 0 ? size : (size + code_block - 1) / code_block, &random);
        }
        if (code == KLR_COAT) tame(&parts[parts.size() - 4], &parts.back(), slot == 0);
      }
    }
  }

  // Any codes, and scales around 1.
  void* add_part(int dtype, int64_t count, std::mt19937* random) {
    const int64_t width = dtype == KLR_UINT8 ? 1 : dtype == KLR_BFLOAT16 ? 2 : 4;
    std::vector<uint8_t> bytes(width * count);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t number = dtype == KLR_UINT8 ? (*random)() : 0x3f000000 + (*random)() % 0x1000000;
      const uint32_t upper = dtype == KLR_BFLOAT16 ? number >> 16 : number;
      std::memcpy(bytes.data() + width * i, &upper, width);
    }
    parts.push_back(std::move(bytes));
    return parts.back().data();
  }

  // No NaN, no sign where there is none, no exponent that makes numbers infinite: these are not equal to themselves.
  static void tame(std::vector<uint8_t>* codes, std::vector<uint8_t>* sixteenths, bool has_sign) {
    for (uint8_t& code : *codes) code = static_cast<uint8_t>(code % 0x7f | (has_sign ? code & 0x80 : 0));
    for (uint8_t& number : *sixteenths) number = static_cast<uint8_t>(8 + number % 232);
  }

  bool operator==(const Problem& other) const {
    return w == other.w && m == other.m && v == other.v && narrow == other.narrow && parts == other.parts;
  }

  void add_to(Fingerprint* fingerprint) const {
    for (const auto* all : {&w, &m, &v}) {
      for (const auto& numbers : *all) fingerprint->add(numbers);
    }
    for (const auto& numbers : narrow) fingerprint->add(numbers);
    for (const auto& numbers : parts) fingerprint->add(numbers);
  }
};

klr_settings settings(bool stochastic_rounding) {
  static const float parameters[] = {0.5f, 0.9f, 0.1f, 0.99f, 0.01f, 1e-8f, 1.5f, 1.2f, 0, 0};  // gradient_scale, ...
  return {parameters, {7, 9}, stochastic_rounding};
}

// In `parts` pieces, the last one first, as threads might come.
void update(int method, Problem* problem, const klr_settings& settings, int parts) {
  const int64_t n = static_cast<int64_t>(problem->tensors.size());
  const klr_tensor* tensors = problem->tensors.data();
  std::vector<int64_t> first(n + 1), pieces(n + 1);
  klr_plan(tensors, n, first.data());
  klr_plan_sums(method, tensors, n, pieces.data());
  std::vector<double> sums(2 * pieces[n]), totals(2 * n);
  if (klr_has_sums(method)) {
    const auto border = [&](int part) { return pieces[n] * part / parts; };
    for (int part = parts - 1; part >= 0; --part) {
      klr_sum(method, tensors, n, pieces.data(), &settings, border(part), border(part + 1), sums.data());
    }
    klr_reduce(n, pieces.data(), sums.data(), totals.data());
  }
  const auto border = [&](int part) { return first[n] * part / parts; };
  for (int part = parts - 1; part >= 0; --part) {
    klr_update(method, tensors, n, first.data(), &settings, border(part), border(part + 1), totals.data());
  }
}

struct Code {
  klr_code code;
  int64_t block;
};

const Code kCodes[] = {{KLR_NO_CODE, 0}, {KLR_BLOCKWISE8, 128}, {KLR_BLOCKWISE8, 4096}, {KLR_COAT, 128}, {KLR_COAT, 4096}};

void any_split_gives_the_same_bits() {
  Fingerprint fingerprint;
  for (int method = 0; method < KLR_METHODS; ++method) {
    for (bool bfloat16 : {false, true}) {
      for (bool rounding : {false, true}) {
        for (const auto [code, block] : kCodes) {
          if (code != KLR_NO_CODE && !klr_takes_code(method, code, block)) continue;
          Problem one(bfloat16, code, block), two(bfloat16, code, block), five(bfloat16, code, block);
          const Problem before(bfloat16, code, block);
          update(method, &one, settings(rounding), 1);
          update(method, &two, settings(rounding), 2);
          update(method, &five, settings(rounding), 5);
          CHECK(!(one == before));
          CHECK(one == two && one == five);
          one.add_to(&fingerprint);
        }
      }
    }
  }
  fingerprint.print();
}

// One tensor through a table of functions, without the dispatch.
[[maybe_unused]] void run_table(const klr::Row* table, int method, Problem* problem, const klr_settings& settings) {
  for (const klr_tensor& tensor : problem->tensors) {
    double totals[2] = {0, 0};
    const klr::Row& row = table[method];
    if (row.has_sums) row.sum[tensor.w_dtype][0](tensor, settings, 0, tensor.size, totals);  // for Adam-mini all blocks
    row.update[tensor.w_dtype][0](tensor, settings, row.has_sums ? totals : nullptr, 0, tensor.size);
  }
}

// Adam-mini with blocks of all kinds: the mean of the squares of a block, with numbers that add up exactly.
void blocks_have_their_means() {
  const int64_t outer = 3, blocks = 130, inner_sizes[] = {1, 5, 70000};
  for (const int64_t inner : inner_sizes) {
    const int64_t size = outer * blocks * inner;
    std::vector<float> w(size, 1), g(size), m(size), v(blocks);
    for (int64_t i = 0; i < size; ++i) g[i] = static_cast<float>(1 + i / inner % blocks % 4);
    const klr_tensor tensor = {
        w.data(), g.data(), {m.data(), v.data()}, size, KLR_FLOAT32, KLR_FLOAT32, 0.5f, 0, 0, 0, blocks, inner,
        {},       0,        KLR_NO_CODE};
    const float parameters[] = {1, 0, 1, 0, 1, 0, 1, 1};  // gradient_scale, ...: only the last gradient counts
    const klr_settings all = {parameters, {0, 0}, 0};
    const int method = klr_find_method("adam_mini");
    int64_t chunks[2], pieces[2];
    klr_plan(&tensor, 1, chunks);
    klr_plan_sums(method, &tensor, 1, pieces);
    CHECK(pieces[1] > 1 || size < KLR_CHUNK);
    std::vector<double> sums(2 * pieces[1]);
    klr_sum(method, &tensor, 1, pieces, &all, 0, pieces[1], sums.data());
    for (int64_t b = 0; b < blocks; ++b) CHECK(v[b] == static_cast<float>((1 + b % 4) * (1 + b % 4)));
    klr_update(method, &tensor, 1, chunks, &all, 0, chunks[1], nullptr);
    for (float x : w) CHECK(x == 0.5f);
  }
}

void all_instruction_sets_give_the_same_bits() {
#ifdef KLR_X86
  for (int method = 0; method < KLR_METHODS; ++method) {
    for (const bool bfloat16 : {false, true}) {
      for (const auto [code, block] : kCodes) {
        if (code != KLR_NO_CODE && !klr_takes_code(method, code, block)) continue;
        Problem baseline(bfloat16, code, block);
        run_table(klr::baseline::table, method, &baseline, settings(bfloat16));
        if (__builtin_cpu_supports("avx2")) {
          Problem other(bfloat16, code, block);
          run_table(klr::avx2::table, method, &other, settings(bfloat16));
          CHECK(other == baseline);
        }
        if (!std::strcmp(klr_instruction_set(), "avx512")) {
          Problem other(bfloat16, code, block);
          run_table(klr::avx512::table, method, &other, settings(bfloat16));
          CHECK(other == baseline);
        }
      }
    }
  }
#endif
}

// Each number is its own nearest, whatever the scale, and only 0 becomes 0 without a sign.
void codes_are_those_of_their_numbers() {
  using namespace klr::baseline;  // NOLINT: what is tested
  for (bool has_sign : {false, true}) {
    const DynamicMap& map = dynamic_map(has_sign);
    float x[256];
    uint8_t all[256], codes[256];
    for (int i = 0; i < 256; ++i) all[i] = static_cast<uint8_t>(i);
    decode(map, all, 4, 256, x);
    CHECK(encode(map, has_sign, x, 256, codes) == 4);
    for (int i = 0; i < 256; ++i) CHECK(codes[i] == i);
    const float tiny[3] = {0, 1e-30f, 1};
    CHECK(encode(map, has_sign, tiny, 3, codes) == 1);
    const int zero = has_sign ? 127 : 0;
    CHECK(codes[0] == zero && codes[1] == (has_sign ? zero : 1) && codes[2] == 255);
    const float bad[2] = {1, NAN};
    CHECK(!(encode(map, has_sign, bad, 2, codes) <= 1));
  }
}

void codes_are_known_to_some_methods() {
  for (const int64_t code : {KLR_BLOCKWISE8, KLR_COAT}) {
    CHECK(klr_takes_code(KLR_ADAMW, code, 256) && !klr_takes_code(KLR_LAMB, code, 256) && !klr_takes_code(KLR_ADAMW, code, 96));
  }
  CHECK(!klr_takes_code(KLR_ADAMW, KLR_NO_CODE, 256) && !klr_takes_code(KLR_ADAMW, 3, 256));
}

void logarithms_and_powers_are_right_to_their_last_bits() {
  using namespace klr::baseline;  // NOLINT: what is tested
  for (int i = -125 * 64; i <= 125 * 64; ++i) {
    const float x = static_cast<float>(i) / 64 + 1e-3f, y = static_cast<float>(std::exp2(x));
    CHECK(std::fabs(exp2_of(x) - y) <= 2e-7f * y);
    CHECK(std::fabs(log2_of(y) - x) <= 4e-7f + 1e-7f * std::fabs(x));
  }
  CHECK(log2_of(1) == 0 && exp2_of(0) == 1 && log2_of(0x1p-126f) == -126 && exp2_of(127) == 0x1p127f);
}

float e4m3(int code) {
  const int field = code >> 3, steps = code & 7;
  return field == 0 ? steps * 0x1p-9f : std::ldexp(static_cast<float>(8 + steps), field - 10);
}

// All codes of FP8 are their own, and what lies between two is the nearer one's.
void e4m3_is_rounded_to_the_nearest() {
  using namespace klr::baseline;  // NOLINT: what is tested
  for (uint32_t code = 0; code < 0x7e; ++code) {
    const float x = e4m3(code), next = e4m3(code + 1);
    CHECK(e4m3_of(x) == code && e4m3_of(0.6f * x + 0.4f * next) == code && e4m3_of(0.4f * x + 0.6f * next) == code + 1);
  }
  CHECK(e4m3_of(448) == 0x7e && e4m3_of(1e9f) == 0x7e);
}

// Groups of all widths: to the nearest code and back, with zeros kept, and what is not finite in a group of its own.
void expanded_groups_come_back() {
  using namespace klr::baseline;  // NOLINT: what is tested
  constexpr int64_t n = 1000, size = 128, count = (n + size - 1) / size;
  std::mt19937 random(2);
  for (const float spread : {0.0f, 0.01f, 1.0f, 10.0f, 60.0f}) {
    std::uniform_real_distribution<float> uniform(-spread, spread);
    std::vector<float> x(n), y(n);
    for (float& each : x) each = std::exp(uniform(random)) * (random() % 2 ? 1.0f : -1.0f);
    x[5] = 0, x[6] = 1e-40f;
    for (int64_t i = 3 * size; i < 4 * size; ++i) x[i] = 0;
    x[2 * size] = NAN, x[5 * size + 1] = -INFINITY;
    std::vector<uint8_t> codes(n), sixteenths(count);
    std::vector<bfloat16> scale(count), center(count);
    const Groups groups = {size, codes.data(), scale.data(), center.data(), sixteenths.data()};
    encode(x.data(), n, groups);
    decode(groups, n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t group = i / size;
      if (group == 2 || group == 5) {
        CHECK(y[i] != y[i]);
      } else if (x[i] == 0 || i == 6) {
        CHECK(y[i] == 0);
      } else {
        const double k = sixteenths[group] / 16.0, by = load(scale[group]), middle = load(center[group]);
        const double power = std::pow(std::fabs(x[i]) / middle, k) / by, code = e4m3(codes[i] & 0x7f);
        CHECK(std::fabs(code - power) <= 1.0001 * std::max(power / 16, 0x1p-10) || (code == 448 && power > code));
        CHECK(std::fabs(y[i] / std::copysign(std::pow(code * by, 1 / k) * middle, x[i]) - 1) < 2e-6 / std::min(k, 1.0));
      }
    }
  }
  std::vector<uint8_t> zeros(n);
  std::vector<float> y(n, 1);
  std::vector<bfloat16> nothing(count, bfloat16{0});
  decode(Groups{size, zeros.data(), nothing.data(), nothing.data(), zeros.data()}, n, y.data());
  for (float each : y) CHECK(each == 0);
}

// The known answers of the generator's authors, for a counter and a key of zeros.
void philox_is_philox() {
  uint16_t bits[8 * klr::baseline::kLanes];
  const uint32_t zeros[2] = {0, 0};
  klr::baseline::random_bits(0, 0, zeros, bits);
  const uint32_t expected[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (int word = 0; word < 4; ++word) {
    const uint32_t low = bits[2 * word * klr::baseline::kLanes], high = bits[(2 * word + 1) * klr::baseline::kLanes];
    CHECK((high << 16 | low) == expected[word]);
  }
  for (const int64_t entry : {0, 17, 127, 128, 1000}) {  // one at a time, as on CUDA
    klr::baseline::random_bits(static_cast<uint32_t>(entry / 128), 3, zeros, bits);
    CHECK(klr::baseline::random_bits(entry, 3, zeros) == bits[entry % 128]);
  }
}

void bfloat16_is_rounded_to_even() {
  using klr::baseline::bfloat16;
  const auto rounded = [](float x) {
    bfloat16 to;
    klr::baseline::store(to, x);
    return to.bits;
  };
  CHECK(rounded(1.0f) == 0x3f80);
  CHECK(rounded(1.0f + 0x1p-8f) == 0x3f80);      // half way, to even
  CHECK(rounded(1.0f + 3 * 0x1p-8f) == 0x3f82);  // half way, to even
  CHECK(rounded(1.0f + 0x1p-8f + 0x1p-20f) == 0x3f81);
  CHECK(rounded(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(rounded(-INFINITY) == 0xff80);
  CHECK((rounded(klr::baseline::float_of(0x7f800001)) & 0x7fff) > 0x7f80);  // a NaN whose bits lie in the lower half
  bfloat16 to;
  klr::baseline::store(to, INFINITY, 0xffff);
  CHECK(to.bits == 0x7f80);
  klr::baseline::store(to, 1.0f, 0xffff);
  CHECK(to.bits == 0x3f80);  // exact, so never moved
}

void names_are_found() {
  for (const char* name : {"sgd", "lion", "adamw", "lars", "lamb"}) CHECK(klr_find_method(name) >= 0);
  CHECK(klr_find_method("adam") == -1);
  CHECK(klr_slots(klr_find_method("lion")) == 1 && klr_slots(klr_find_method("lamb")) == 2);
  for (int method = 0; method < KLR_METHODS; ++method) CHECK(klr_find_method(klr_method_name(method)) == method);
  CHECK(!std::strcmp(klr_parameter_names(KLR_LION), "gradient_scale, beta_1, one_minus_beta_1, beta_2, one_minus_beta_2"));
  CHECK(klr_parameter_count(KLR_LION) == 5 && klr_parameter_count(KLR_LAMB) == 10);
}

void nothing_is_fine() {
  int64_t first[1];
  klr_plan(nullptr, 0, first);
  CHECK(first[0] == 0);
  const klr_settings none = settings(false);
  klr_update(0, nullptr, 0, first, &none, 0, 0, nullptr);
}

void many_entries_are_counted_in_64_bits() {
  klr_tensor huge = {};
  huge.size = (int64_t{1} << 33) + 1;
  int64_t first[2];
  klr_plan(&huge, 1, first);
  CHECK(first[1] == (int64_t{1} << 33) / KLR_CHUNK + 1);
}

}  // namespace

int main() {
  any_split_gives_the_same_bits();
  all_instruction_sets_give_the_same_bits();
  blocks_have_their_means();
  codes_are_those_of_their_numbers();
  codes_are_known_to_some_methods();
  logarithms_and_powers_are_right_to_their_last_bits();
  e4m3_is_rounded_to_the_nearest();
  expanded_groups_come_back();
  philox_is_philox();
  bfloat16_is_rounded_to_even();
  names_are_found();
  nothing_is_fine();
  many_entries_are_counted_in_64_bits();
  std::printf("ops/kernels: all tests passed on %s\n", klr_instruction_set());
}
