// The operands of the update in XLA.
//
// In: n variables, the first slot of each, the second slot of each, n gradients, rates (n, 3), numbers, seed. If `blocks` is
// one number, the size of blocks of codes, each slot is codes, and then their scales. Out: variables and slots, which should
// share their buffers with the operands.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "../kernels/update.h"
#include "xla/ffi/api/ffi.h"

namespace keras_lrsched {

namespace ffi = xla::ffi;

struct Operands {
  int method;
  std::vector<kl_tensor> tensors;  // without rates, which may lie in the memory of a device
  const float* rates;
  const float* numbers;
  const uint32_t* seed;
};

// Checks and collects them. `copy(to, from, bytes)` is called where a result has a buffer of its own; it says whether it could.
template <class Copy>
ffi::Error ReadOperands(const ffi::RemainingArgs& args, const ffi::RemainingRets& rets, std::string_view name,
                        ffi::Span<const int64_t> blocks, Copy copy, Operands* operands) {
  operands->method = kl_find_method(std::string(name).c_str());
  if (operands->method < 0) return ffi::Error::InvalidArgument("keras_lrsched_update: there is no such method");
  const bool in_codes = blocks.size() == 1;
  if (in_codes && !kl_takes_codes(operands->method, blocks[0])) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: the method takes no codes in such blocks");
  }
  const int64_t n_slots = kl_slots(operands->method) * (in_codes ? 2 : 1);
  const int64_t n = static_cast<int64_t>(rets.size()) / (1 + n_slots);
  if (static_cast<int64_t>(rets.size()) != n * (1 + n_slots) || static_cast<int64_t>(args.size()) != n * (2 + n_slots) + 3) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: wrong number of operands");
  }
  const auto argument = [&](int64_t i) { return args.get<ffi::AnyBuffer>(i).value(); };
  const ffi::AnyBuffer rates = argument(n * (2 + n_slots)), numbers = argument(n * (2 + n_slots) + 1);
  const ffi::AnyBuffer seed = argument(n * (2 + n_slots) + 2);
  if (rates.element_count() != static_cast<size_t>(3 * n) || numbers.element_count() != KL_NUMBERS ||
      seed.element_count() != 2) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: rates, numbers or seed have a wrong shape");
  }
  operands->rates = rates.typed_data<float>();
  operands->numbers = numbers.typed_data<float>();
  operands->seed = seed.typed_data<uint32_t>();

  const bool in_blocks = operands->method == KL_ADAM_MINI;
  if (blocks.size() != static_cast<size_t>(in_codes ? 1 : in_blocks ? 2 * n : 0)) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: wrong number of blocks");
  }
  operands->tensors.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    kl_tensor& tensor = operands->tensors[i];
    const ffi::AnyBuffer variable = argument(i), gradient = argument(n * (1 + n_slots) + i);
    for (const ffi::AnyBuffer& buffer : {variable, gradient}) {
      if (buffer.element_type() != ffi::F32 && buffer.element_type() != ffi::BF16) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: variables and gradients must be float32 or bfloat16");
      }
    }
    for (int64_t part = 0; part <= n_slots; ++part) {
      const ffi::AnyBuffer old = argument(part * n + i);
      const ffi::AnyBuffer result = **rets.get<ffi::AnyBuffer>(part * n + i);
      const bool is_codes = in_codes && part % 2 == 1, is_scales = in_codes && part > 0 && part % 2 == 0;
      const int64_t all = static_cast<int64_t>(gradient.element_count());
      const int64_t entries = in_blocks && part == 2 ? blocks[2 * i] : is_scales ? (all + blocks[0] - 1) / blocks[0] : all;
      if (old.element_count() != static_cast<size_t>(entries)) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: shapes of a variable, its state and its gradient differ");
      }
      if (part > 0 && old.element_type() != (is_codes ? ffi::U8 : ffi::F32)) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: the state must be float32, or codes in uint8");
      }
      if (old.untyped_data() != result.untyped_data() && !copy(result.untyped_data(), old.untyped_data(), old.size_bytes())) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: results must share the buffers of operands");
      }
      if (part == 0) {
        tensor.w = result.untyped_data();
      } else if (is_codes) {
        tensor.codes[part / 2] = static_cast<uint8_t*>(result.untyped_data());
      } else if (is_scales) {
        tensor.absmax[part / 2 - 1] = static_cast<float*>(result.untyped_data());
      } else {
        tensor.slots[part - 1] = static_cast<float*>(result.untyped_data());
      }
    }
    tensor.g = gradient.untyped_data();
    tensor.size = static_cast<int64_t>(gradient.element_count());
    tensor.w_dtype = variable.element_type() == ffi::BF16 ? KL_BFLOAT16 : KL_FLOAT32;
    tensor.g_dtype = gradient.element_type() == ffi::BF16 ? KL_BFLOAT16 : KL_FLOAT32;
    tensor.index = static_cast<int32_t>(i);
    tensor.code_block = in_codes ? blocks[0] : 0;
    tensor.blocks = in_blocks ? blocks[2 * i] : 1;
    tensor.inner = in_blocks ? blocks[2 * i + 1] : 1;
    if (!kl_valid_blocks(&tensor)) return ffi::Error::InvalidArgument("keras_lrsched_update: blocks do not divide a variable");
  }
  return ffi::Error::Success();
}

}  // namespace keras_lrsched
