// KerasLrschedUpdate where XLA compiles the graph: one custom call, whose results take the places of its operands.
#include <string>
#include <utility>
#include <vector>

#include "../kernels/update.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/xla_builder.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

class XlaUpdateOp : public XlaOpKernel {
 public:
  explicit XlaUpdateOp(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("n", &n_));
    OP_REQUIRES_OK(context, context->GetAttr("n_slots", &n_slots_));
    OP_REQUIRES_OK(context, context->GetAttr("method", &method_));
    OP_REQUIRES_OK(context, context->GetAttr("stochastic_rounding", &stochastic_rounding_));
    OP_REQUIRES_OK(context, context->GetAttr("blocks", &blocks_));
  }

  void Compile(XlaOpKernelContext* context) override {
    const int resources = n_ + n_slots_;
    const bool in_blocks = klr_in_blocks(klr_find_method(method_.c_str()));
    std::vector<xla::XlaOp> operands;
    std::vector<TensorShape> shapes;
    std::vector<xla::Shape> results;
    std::vector<DataType> types;
    std::vector<std::pair<xla::ShapeIndex, std::pair<int64_t, xla::ShapeIndex>>> aliases;
    for (int i = 0; i < resources; ++i) {
      xla::XlaOp value;
      DataType type;
      TensorShape shape;
      OP_REQUIRES_OK(context, context->GetVariableTypeAndShape(i, &type, &shape));
      OP_REQUIRES_OK(context, context->ReadVariableInput(i, type, &shape, &value));
      // All parts of a code but the first, and the second slot of Adam-mini, have a number a block.
      const int part = i / n_ - 1;
      const bool a_block_each = in_blocks ? part == 1 : !blocks_.empty() && part % klr_parts(blocks_[0]) > 0;
      OP_REQUIRES(context, i < n_ || a_block_each || shape == shapes[i % n_],
                  absl::InvalidArgumentError("KerasLrschedUpdate: the state of a variable must have its shape."));
      if (i < n_) shapes.push_back(shape);
      auto xla_shape = context->builder()->GetShape(value);
      OP_REQUIRES_OK(context, xla_shape.status());
      operands.push_back(value);
      results.push_back(*xla_shape);
      types.push_back(type);
      aliases.push_back({{i}, {i, {}}});
    }
    for (int i = 0; i < n_; ++i) {
      OP_REQUIRES(context, context->InputShape(resources + i) == shapes[i],
                  absl::InvalidArgumentError("KerasLrschedUpdate: a variable of shape " + shapes[i].DebugString() +
                                             " has a gradient of shape " + context->InputShape(resources + i).DebugString()));
    }
    for (int i = resources; i < resources + n_ + 3; ++i) operands.push_back(context->Input(i));
    xla::XlaOp call = xla::CustomCall(
        context->builder(), "keras_lrsched_update", operands, xla::ShapeUtil::MakeTupleShape(results),
        absl::StrFormat("{method = \"%s\", stochastic_rounding = %s, blocks = array<i64%s>}", method_,
                        stochastic_rounding_ ? "true" : "false", blocks_.empty() ? "" : ": " + absl::StrJoin(blocks_, ", ")),
        /*has_side_effect=*/false, aliases, /*literal=*/nullptr, xla::CustomCallSchedule::SCHEDULE_NONE,
        xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    for (int i = 0; i < resources; ++i) {
      OP_REQUIRES_OK(context, context->AssignVariable(i, types[i], xla::GetTupleElement(call, i)));
    }
  }

 private:
  int n_, n_slots_;
  std::string method_;
  std::vector<int64_t> blocks_;
  bool stochastic_rounding_;
};

// REGISTER_XLA_OP is heeded only before the first XLA compilation of a process; this is always.
REGISTER_KERNEL_BUILDER(Name("KerasLrschedUpdate").Device("XLA_CPU_JIT"), XlaUpdateOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedUpdate").Device("XLA_GPU_JIT"), XlaUpdateOp);

}  // namespace keras_lrsched
