// What the kernels of custom_ops_cuda/quantize.cu do, done on the host, gives the bits of ops/kernels.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#define KLR_ISA baseline
#include "emulated_quantize.h"

namespace {

std::mt19937 random_bits(1);

// Numbers of all sizes in most blocks, of like size in others, and here and there one that is none.
std::vector<uint8_t> numbers(const klr_quantizer& q, int64_t shift) {
  const int64_t size = q.outer * q.columns * q.inner + shift;
  const int bytes = q.dtype == KLR_X_FLOAT32 ? 4 : 2;
  std::vector<uint8_t> x(size * bytes);
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits = random_bits();
    if (i / 512 % 3 != 0) bits = (bits & 0x81ffffff) | (i / 512 % 3 == 1 ? 0x3e000000 : 0x00000000);
    if ((bits & 0x7f800000) == 0x7f800000 && random_bits() % 64 != 0) bits ^= 0x40000000;
    std::memcpy(&x[i * bytes], reinterpret_cast<const uint8_t*>(&bits) + 4 - bytes, bytes);
  }
  return x;
}

bool same_numbers(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, int bytes) {
  for (size_t i = 0; i < a.size(); i += bytes) {
    uint32_t own = 0, other = 0;
    std::memcpy(reinterpret_cast<uint8_t*>(&own) + 4 - bytes, &a[i], bytes);
    std::memcpy(reinterpret_cast<uint8_t*>(&other) + 4 - bytes, &b[i], bytes);
    const bool both_are_none = (own & 0x7fffffff) > 0x7f800000 && (other & 0x7fffffff) > 0x7f800000;
    if (own != other && !both_are_none) return false;
  }
  return true;
}

void fail(const klr_quantizer& q, const char* what, int team) {
  std::printf("%s of %d x %d x %d in blocks of %d x %d, element %d, rule %d, stochastic %d, dtype %d, by %d: other bits\n",
              what, static_cast<int>(q.outer), static_cast<int>(q.columns), static_cast<int>(q.inner),
              static_cast<int>(q.block_rows), static_cast<int>(q.block_columns), q.element, q.rule, q.stochastic, q.dtype,
              team);
  std::exit(1);
}

// `shift`: by how many numbers and bytes of codes the tensors are away from an aligned address.
void check(const klr_quantizer& q, int team, int64_t shift) {
  const std::vector<uint8_t> memory = numbers(q, shift);
  const int bytes = q.dtype == KLR_X_FLOAT32 ? 4 : 2;
  const uint8_t* x = memory.data() + shift * bytes;
  const int64_t size = q.outer * q.columns * q.inner;
  klr_stored stored;
  klr_quantize_stored(&q, &stored);
  const int64_t code_bytes = stored.code_rows * stored.code_bytes;
  const int64_t scale_bytes = stored.scale_rows * stored.scale_columns * stored.scale_bytes;

  float tensor[2] = {1, 1};
  const int64_t chunks = klr_quantize_chunks(&q);
  if (klr_quantize_phases(&q) == 2) {
    std::vector<uint32_t> amax(chunks);
    klr_quantize_amax(&q, x, 0, chunks, amax.data());
    klr_quantize_fit(&q, amax.data(), tensor);
  }
  std::vector<uint8_t> codes(code_bytes), scales(scale_bytes), fake(size * bytes), values(size * 4);
  klr_quantize(&q, x, tensor, 0, chunks, codes.data(), scales.data());
  klr_fake_quantize(&q, x, tensor, 0, chunks, fake.data());
  klr_dequantize(&q, codes.data(), scales.data(), tensor + 1, 0, chunks, values.data());

  // Filled with what must be written over.
  std::vector<uint8_t> own_codes(code_bytes + shift, 0xA5), own_scales(scale_bytes, 0xA5);
  std::vector<uint8_t> own_fake((size + shift) * bytes, 0xA5), own_values((size + shift) * 4, 0xA5);
  float tensor_scale = -1;
  emulated::quantize(q, x, team, own_codes.data() + shift, own_scales.data(), &tensor_scale);
  emulated::fake_quantize(q, x, team, own_fake.data() + shift * bytes);
  emulated::dequantize(q, own_codes.data() + shift, own_scales.data(), &tensor_scale, team, own_values.data() + shift * 4);
  own_codes.erase(own_codes.begin(), own_codes.begin() + shift);
  own_fake.erase(own_fake.begin(), own_fake.begin() + shift * bytes);
  own_values.erase(own_values.begin(), own_values.begin() + shift * 4);
  if (own_codes != codes) fail(q, "codes", team);
  if (stored.scale_bytes == 1 ? own_scales != scales : !same_numbers(own_scales, scales, 4)) fail(q, "scales", team);
  if (klr::is_nvfp4(q.rule) && tensor_scale != tensor[1]) fail(q, "tensor scale", team);
  if (!same_numbers(own_fake, fake, bytes)) fail(q, "fake quantization", team);
  if (!same_numbers(own_values, values, 4)) fail(q, "dequantization", team);
}

struct Kind {
  int element, rule;
  int64_t block_rows, block_columns;
};

std::vector<Kind> kinds() {
  std::vector<Kind> made;
  for (int element = 0; element < KLR_ELEMENTS; ++element) {
    for (int rule : {KLR_FLOOR, KLR_CEIL, KLR_RCEIL, KLR_EVEN, KLR_EXACT, KLR_POWER_OF_TWO})
      made.push_back({element, rule, 1, 32});
    made.push_back({element, KLR_RCEIL, 4, 20});
    made.push_back({element, KLR_EXACT, 0, 0});
    made.push_back({element, KLR_EXACT, 1, 0});
    made.push_back({element, KLR_POWER_OF_TWO, 1, 128});
    made.push_back({element, KLR_EXACT, 32, 32});
  }
  for (int rule : {KLR_SIX, KLR_FOUR_OVER_SIX}) {
    for (const int64_t rows : {1, 16}) made.push_back({KLR_E2M1, rule, rows, 16});
    made.push_back({KLR_E2M1, rule, 3, 10});
  }
  return made;
}

void the_same_bits_as_on_the_host() {
  const int64_t shapes[][3] = {{1, 1, 1},  {5, 70, 1},   {3, 256, 1},  {2, 35, 20},       {1, 41, 1},
                               {48, 9, 3}, {40, 300, 1}, {1, 9000, 1}, {2, 16 * 1025, 1}, {1, 17000, 3}};
  int n = 0;
  for (const Kind& kind : kinds()) {
    for (const auto& shape : shapes) {
      klr_quantizer q = {};
      q.outer = shape[0], q.columns = shape[1], q.inner = shape[2];
      q.rows = shape[2] > 1 ? shape[2] : shape[0];
      q.element = kind.element, q.rule = kind.rule, q.block_rows = kind.block_rows, q.block_columns = kind.block_columns;
      q.seed[0] = 7, q.seed[1] = 9;
      for (const int options : {0, 1, 2, 3}) {
        q.dtype = options % 2, q.stochastic = options / 2;
        const bool small = q.outer * q.columns * q.inner < 1000;
        check(q, n % 23 == 0 && small ? 4 : 1, n % 7 == 0 ? 1 : 0);
        ++n;
      }
    }
  }
}

}  // namespace

int main() {
  the_same_bits_as_on_the_host();
  std::printf("quantize on CUDA, emulated: all hold (%s)\n", klr_quantize_instruction_set());
}
