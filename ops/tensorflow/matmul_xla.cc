// KerasLrschedMatmul where XLA compiles the graph: one custom call.
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/xla_builder.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

class XlaMatmulOp : public XlaOpKernel {
 public:
  explicit XlaMatmulOp(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("transpose_a", &transpose_a_));
    OP_REQUIRES_OK(context, context->GetAttr("transpose_b", &transpose_b_));
    OP_REQUIRES_OK(context, context->GetAttr("output", &output_));
  }

  void Compile(XlaOpKernelContext* context) override {
    const TensorShape a = context->InputShape(0), b = context->InputShape(1);
    OP_REQUIRES(context, a.dims() == 2 && b.dims() == 2 && a.dim_size(transpose_a_ ? 0 : 1) == b.dim_size(transpose_b_ ? 1 : 0),
                absl::InvalidArgumentError("KerasLrschedMatmul: matrices of shape " + a.DebugString() + " and " +
                                           b.DebugString() + " do not fit."));
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> shapes;
    for (int i = 0; i < 4; ++i) {
      operands.push_back(context->Input(i));
      auto shape = context->InputXlaShape(i);
      OP_REQUIRES_OK(context, shape.status());
      shapes.push_back(xla::ShapeUtil::MakeShapeWithDescendingLayout(shape->element_type(), shape->dimensions()));
    }
    const xla::Shape result = xla::ShapeUtil::MakeShapeWithDescendingLayout(
        output_ == "int32" ? xla::S32 : xla::F32, {a.dim_size(transpose_a_ ? 1 : 0), b.dim_size(transpose_b_ ? 0 : 1)});
    // Rows must lie one after the other, also where XLA would rather have it otherwise.
    context->SetOutput(
        0, xla::CustomCallWithLayout(context->builder(), "keras_lrsched_matmul", operands, result, shapes,
                                     absl::StrFormat("{transpose_a = %s, transpose_b = %s, output = \"%s\"}",
                                                     transpose_a_ ? "true" : "false", transpose_b_ ? "true" : "false", output_),
                                     /*has_side_effect=*/false, /*output_operand_aliasing=*/{}, /*literal=*/nullptr,
                                     xla::CustomCallSchedule::SCHEDULE_NONE, xla::CustomCallApiVersion::API_VERSION_TYPED_FFI));
  }

 private:
  bool transpose_a_, transpose_b_;
  std::string output_;
};

// REGISTER_XLA_OP is heeded only before the first XLA compilation of a process; this is always.
REGISTER_KERNEL_BUILDER(Name("KerasLrschedMatmul").Device("XLA_CPU_JIT"), XlaMatmulOp);

}  // namespace keras_lrsched
