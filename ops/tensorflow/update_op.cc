// KerasLrschedUpdate: one op that updates all variables of an optimizer in place.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "../kernels/update.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

// slots: first the first slot of all variables, then the second; if the state is in a klr_code, first the first part of the
// first slot, then its second part, and so on. blocks: that code and its block size; of Adam-mini, two numbers a variable; else
// nothing. rates: a row a variable, (learning rate, weight decay, adapted).
REGISTER_OP("KerasLrschedUpdate")
    .Input("variables: n * resource")
    .Input("slots: n_slots * resource")
    .Input("gradients: gradient_types")
    .Input("rates: float")
    .Input("parameters: float")
    .Input("seed: uint32")
    .Attr("n: int >= 0")
    .Attr("n_slots: int >= 0")
    .Attr("gradient_types: list({float, bfloat16}) >= 0")
    .Attr("method: string")
    .Attr("stochastic_rounding: bool")
    .Attr("blocks: list(int) = []")
    .SetIsStateful()
    .SetShapeFn(shape_inference::NoOutputs);

// Holds variables and the locks on them, in an order that all who do so have in common.
class Variables {
 public:
  Variables() = default;
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;
  ~Variables() {
    for (mutex* each : locked_) each->unlock();
  }

  absl::Status Acquire(OpKernelContext* context, int count) {
    for (int i = 0; i < count; ++i) {
      core::RefCountPtr<Var> variable;
      TF_RETURN_IF_ERROR(LookupResource(context, HandleFromInput(context, i), &variable));
      variables_.push_back(std::move(variable));
    }
    std::vector<mutex*> mutexes;
    for (auto& variable : variables_) mutexes.push_back(variable->mu());
    std::sort(mutexes.begin(), mutexes.end());
    if (std::adjacent_find(mutexes.begin(), mutexes.end()) != mutexes.end()) {
      return absl::InvalidArgumentError("KerasLrschedUpdate: a variable is given twice.");
    }
    for (mutex* each : mutexes) {
      each->lock();
      locked_.push_back(each);
    }
    for (auto& variable : variables_) {
      if (!variable->is_initialized) {
        return absl::FailedPreconditionError("KerasLrschedUpdate: a variable is not initialized: " + variable->DebugString());
      }
    }
    return absl::OkStatus();
  }

  const Tensor& value(int i) const { return *variables_[i]->tensor(); }

  // Its buffer, for writing: a copy of its own if somebody still reads the old value.
  absl::StatusOr<void*> Write(OpKernelContext* context, int i) {
    Tensor* tensor = variables_[i]->tensor();
    if (!tensor->RefCountIsOne()) {
      Tensor copy;
      TF_RETURN_IF_ERROR(context->allocate_temp(tensor->dtype(), tensor->shape(), &copy));
      std::memcpy(copy.data(), tensor->data(), tensor->TotalBytes());
      *tensor = copy;
    }
    return tensor->data();
  }

 private:
  std::vector<core::RefCountPtr<Var>> variables_;
  std::vector<mutex*> locked_;
};

class UpdateOp : public OpKernel {
 public:
  explicit UpdateOp(OpKernelConstruction* context) : OpKernel(context) {
    std::string method;
    OP_REQUIRES_OK(context, context->GetAttr("n", &n_));
    OP_REQUIRES_OK(context, context->GetAttr("n_slots", &n_slots_));
    OP_REQUIRES_OK(context, context->GetAttr("method", &method));
    OP_REQUIRES_OK(context, context->GetAttr("stochastic_rounding", &stochastic_rounding_));
    OP_REQUIRES_OK(context, context->GetAttr("blocks", &blocks_));
    method_ = klr_find_method(method.c_str());
    OP_REQUIRES(context, method_ >= 0, absl::InvalidArgumentError("KerasLrschedUpdate: there is no method " + method));
    const bool in_codes = !klr_in_blocks(method_) && blocks_.size() == 2;
    OP_REQUIRES(context, !in_codes || klr_takes_code(method_, blocks_[0], blocks_[1]),
                absl::InvalidArgumentError("KerasLrschedUpdate: " + method + " takes no such code in such blocks."));
    code_ = in_codes ? blocks_[0] : KLR_NO_CODE;
    parts_ = klr_parts(code_);
    OP_REQUIRES(context, n_slots_ == n_ * klr_slots(method_) * parts_,
                absl::InvalidArgumentError("KerasLrschedUpdate: " + method + " needs another number of slots."));
    OP_REQUIRES(context, in_codes || static_cast<int>(blocks_.size()) == (klr_in_blocks(method_) ? 2 * n_ : 0),
                absl::InvalidArgumentError("KerasLrschedUpdate: wrong number of blocks."));
  }

  void Compute(OpKernelContext* context) override {
    Variables variables;
    OP_REQUIRES_OK(context, variables.Acquire(context, n_ + n_slots_));
    for (int i = 0; i < n_; ++i) OP_REQUIRES_OK(context, Check(context, variables, i));
    klr_settings settings = {};
    OP_REQUIRES_OK(context, ReadSettings(context, &settings));
    std::vector<klr_tensor> tensors(n_);
    for (int i = 0; i < n_; ++i) OP_REQUIRES_OK(context, Describe(context, &variables, i, &tensors[i]));
    Run(context, tensors, settings);
  }

 private:
  const Tensor& Gradient(OpKernelContext* context, int i) { return context->input(n_ + n_slots_ + i); }

  absl::Status Check(OpKernelContext* context, const Variables& variables, int i) {
    const Tensor& value = variables.value(i);
    if (value.dtype() != DT_FLOAT && value.dtype() != DT_BFLOAT16) {
      return absl::InvalidArgumentError("KerasLrschedUpdate: a variable must be float32 or bfloat16. Received: " +
                                        DataTypeString(value.dtype()));
    }
    if (Gradient(context, i).shape() != value.shape()) {
      return absl::InvalidArgumentError("KerasLrschedUpdate: a variable of shape " + value.shape().DebugString() +
                                        " has a gradient of shape " + Gradient(context, i).shape().DebugString());
    }
    constexpr DataType kTypes[] = {DT_FLOAT, DT_BFLOAT16, DT_UINT8};
    for (int part = 0; part < n_slots_ / n_; ++part) {
      const Tensor& state = variables.value((1 + part) * n_ + i);
      if (state.dtype() != kTypes[klr_part_dtype(code_, part % parts_)] ||
          state.NumElements() != Entries(part, i, value.NumElements())) {
        return absl::InvalidArgumentError(
            "KerasLrschedUpdate: the state of a variable must be float32, or the parts of a code, and of its shape " +
            value.shape().DebugString());
      }
    }
    return absl::OkStatus();
  }

  // How many numbers a part of the state has: one an entry, or one a block.
  int64_t Entries(int part, int i, int64_t size) const {
    if (part % parts_ > 0) return (size + blocks_[1] - 1) / blocks_[1];
    return klr_in_blocks(method_) && part == 1 ? blocks_[2 * i] : size;
  }

  absl::Status ReadSettings(OpKernelContext* context, klr_settings* settings) {
    const int first = 2 * n_ + n_slots_;
    const Tensor &rates = context->input(first), &parameters = context->input(first + 1), &seed = context->input(first + 2);
    if (rates.NumElements() != 3 * n_ || parameters.NumElements() != klr_parameter_count(method_) || seed.NumElements() != 2) {
      return absl::InvalidArgumentError("KerasLrschedUpdate: rates, parameters or seed have a wrong shape.");
    }
    settings->parameters = parameters.flat<float>().data();
    std::copy_n(seed.flat<uint32>().data(), 2, settings->seed);
    settings->stochastic_rounding = stochastic_rounding_;
    return absl::OkStatus();
  }

  absl::Status Describe(OpKernelContext* context, Variables* variables, int i, klr_tensor* tensor) {
    const Tensor& gradient = Gradient(context, i);
    const float* rates = context->input(2 * n_ + n_slots_).flat<float>().data() + 3 * i;
    TF_ASSIGN_OR_RETURN(tensor->w, variables->Write(context, i));
    for (int part = 0; part < n_slots_ / n_; ++part) {
      TF_ASSIGN_OR_RETURN(void* state, variables->Write(context, n_ * (1 + part) + i));
      if (code_ == KLR_NO_CODE) {
        tensor->slots[part] = static_cast<float*>(state);
      } else {
        tensor->parts[part / parts_][part % parts_] = state;
      }
    }
    tensor->code = code_;
    tensor->code_block = code_ == KLR_NO_CODE ? 0 : blocks_[1];
    tensor->g = gradient.data();
    tensor->size = gradient.NumElements();
    tensor->w_dtype = variables->value(i).dtype() == DT_BFLOAT16 ? KLR_BFLOAT16 : KLR_FLOAT32;
    tensor->g_dtype = gradient.dtype() == DT_BFLOAT16 ? KLR_BFLOAT16 : KLR_FLOAT32;
    tensor->learning_rate = rates[0];
    tensor->weight_decay = rates[1];
    tensor->adapted = rates[2] != 0;
    tensor->index = i;
    tensor->blocks = klr_in_blocks(method_) ? blocks_[2 * i] : 1;
    tensor->inner = klr_in_blocks(method_) ? blocks_[2 * i + 1] : 1;
    return klr_valid_blocks(tensor) ? absl::OkStatus()
                                    : absl::InvalidArgumentError("KerasLrschedUpdate: blocks do not divide a variable.");
  }

  void Run(OpKernelContext* context, const std::vector<klr_tensor>& tensors, const klr_settings& settings) {
    std::vector<int64_t> first(n_ + 1);
    klr_plan(tensors.data(), n_, first.data());
    const int64_t chunks = first.back();
    auto* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
    std::vector<double> totals;
    if (klr_has_sums(method_)) {
      std::vector<int64_t> pieces(n_ + 1);
      klr_plan_sums(method_, tensors.data(), n_, pieces.data());
      std::vector<double> sums(2 * pieces.back());
      totals.resize(2 * n_);
      workers->ParallelFor(pieces.back(), KLR_CHUNK, [&](int64_t begin, int64_t end) {
        klr_sum(method_, tensors.data(), n_, pieces.data(), &settings, begin, end, sums.data());
      });
      klr_reduce(n_, pieces.data(), sums.data(), totals.data());
    }
    workers->ParallelFor(chunks, KLR_CHUNK, [&](int64_t begin, int64_t end) {
      klr_update(method_, tensors.data(), n_, first.data(), &settings, begin, end, totals.empty() ? nullptr : totals.data());
    });
  }

  int n_, n_slots_, method_, code_, parts_;
  bool stochastic_rounding_;
  std::vector<int64_t> blocks_;
};

REGISTER_KERNEL_BUILDER(Name("KerasLrschedUpdate").Device(DEVICE_CPU), UpdateOp);

}  // namespace keras_lrsched
