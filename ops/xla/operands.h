// The operands of the update in XLA.
//
// In: n variables, the first slot of each, the second slot of each, n gradients, rates (n, 3), parameters, seed. `blocks` are
// two numbers a variable of Adam-mini; else, if the state is in a klr_code, that and its block size, and each slot is the first
// part of each, then the second, and so on. Out: variables and slots, which should share their buffers with the operands.
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
  std::vector<klr_tensor> tensors;  // without rates, which may lie in the memory of a device
  const float* rates;
  const float* parameters;
  const uint32_t* seed;
};

// Checks and collects them. `copy(to, from, bytes)` is called where a result has a buffer of its own; it returns whether it
// could.
template <class Copy>
ffi::Error ReadOperands(const ffi::RemainingArgs& args, const ffi::RemainingRets& rets, std::string_view name,
                        ffi::Span<const int64_t> blocks, Copy copy, Operands* operands) {
  operands->method = klr_find_method(std::string(name).c_str());
  if (operands->method < 0) return ffi::Error::InvalidArgument("keras_lrsched_update: there is no such method");
  const bool in_blocks = klr_in_blocks(operands->method), in_codes = !in_blocks && blocks.size() == 2;
  if (in_codes && !klr_takes_code(operands->method, blocks[0], blocks[1])) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: the method takes no such code in such blocks");
  }
  const int64_t code = in_codes ? blocks[0] : KLR_NO_CODE, parts = klr_parts(code),
                n_slots = klr_slots(operands->method) * parts;
  const int64_t n = static_cast<int64_t>(rets.size()) / (1 + n_slots);
  if (static_cast<int64_t>(rets.size()) != n * (1 + n_slots) || static_cast<int64_t>(args.size()) != n * (2 + n_slots) + 3) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: wrong number of operands");
  }
  const auto argument = [&](int64_t i) { return args.get<ffi::AnyBuffer>(i).value(); };
  const ffi::AnyBuffer rates = argument(n * (2 + n_slots)), parameters = argument(n * (2 + n_slots) + 1);
  const ffi::AnyBuffer seed = argument(n * (2 + n_slots) + 2);
  if (rates.element_count() != static_cast<size_t>(3 * n) || seed.element_count() != 2 ||
      parameters.element_count() != static_cast<size_t>(klr_parameter_count(operands->method))) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: rates, parameters or seed have a wrong shape");
  }
  operands->rates = rates.typed_data<float>();
  operands->parameters = parameters.typed_data<float>();
  operands->seed = seed.typed_data<uint32_t>();

  if (blocks.size() != static_cast<size_t>(in_codes ? 2 : in_blocks ? 2 * n : 0)) {
    return ffi::Error::InvalidArgument("keras_lrsched_update: wrong number of blocks");
  }
  operands->tensors.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    klr_tensor& tensor = operands->tensors[i];
    const ffi::AnyBuffer variable = argument(i), gradient = argument(n * (1 + n_slots) + i);
    for (const ffi::AnyBuffer& buffer : {variable, gradient}) {
      if (buffer.element_type() != ffi::F32 && buffer.element_type() != ffi::BF16) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: variables and gradients must be float32 or bfloat16");
      }
    }
    constexpr ffi::DataType kTypes[] = {ffi::F32, ffi::BF16, ffi::U8};
    for (int64_t place = 0; place <= n_slots; ++place) {
      const ffi::AnyBuffer old = argument(place * n + i);
      const ffi::AnyBuffer result = **rets.get<ffi::AnyBuffer>(place * n + i);
      const int64_t slot = (place - 1) / parts, part = place > 0 ? (place - 1) % parts : 0;
      const int64_t all = static_cast<int64_t>(gradient.element_count());
      const int64_t entries = in_blocks && place == 2 ? blocks[2 * i] : part > 0 ? (all + blocks[1] - 1) / blocks[1] : all;
      if (old.element_count() != static_cast<size_t>(entries)) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: shapes of a variable, its state and its gradient differ");
      }
      if (place > 0 && old.element_type() != kTypes[klr_part_dtype(code, part)]) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: the state must be float32, or the parts of a code");
      }
      if (old.untyped_data() != result.untyped_data() && !copy(result.untyped_data(), old.untyped_data(), old.size_bytes())) {
        return ffi::Error::InvalidArgument("keras_lrsched_update: results must share the buffers of operands");
      }
      if (place == 0) {
        tensor.w = result.untyped_data();
      } else if (in_codes) {
        tensor.parts[slot][part] = result.untyped_data();
      } else {
        tensor.slots[slot] = static_cast<float*>(result.untyped_data());
      }
    }
    tensor.g = gradient.untyped_data();
    tensor.size = static_cast<int64_t>(gradient.element_count());
    tensor.w_dtype = variable.element_type() == ffi::BF16 ? KLR_BFLOAT16 : KLR_FLOAT32;
    tensor.g_dtype = gradient.element_type() == ffi::BF16 ? KLR_BFLOAT16 : KLR_FLOAT32;
    tensor.index = static_cast<int32_t>(i);
    tensor.code = static_cast<int32_t>(code);
    tensor.code_block = in_codes ? blocks[1] : 0;
    tensor.blocks = in_blocks ? blocks[2 * i] : 1;
    tensor.inner = in_blocks ? blocks[2 * i + 1] : 1;
    if (!klr_valid_blocks(&tensor)) return ffi::Error::InvalidArgument("keras_lrsched_update: blocks do not divide a variable");
  }
  return ffi::Error::Success();
}

}  // namespace keras_lrsched
