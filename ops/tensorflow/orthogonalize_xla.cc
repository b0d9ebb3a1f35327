// KerasLrschedOrthogonalize where XLA compiles the graph: one custom call.
#include <vector>

#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/xla_builder.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

class XlaOrthogonalizeOp : public XlaOpKernel {
 public:
  explicit XlaOrthogonalizeOp(OpKernelConstruction* context) : XlaOpKernel(context) {}

  void Compile(XlaOpKernelContext* context) override {
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> shapes;
    for (int i = 0; i < context->num_inputs(); ++i) {
      operands.push_back(context->Input(i));
      auto shape = context->InputXlaShape(i);
      OP_REQUIRES_OK(context, shape.status());
      shapes.push_back(xla::ShapeUtil::MakeShapeWithDescendingLayout(shape->element_type(), shape->dimensions()));
    }
    const int n = context->num_outputs();
    // Rows must lie one after the other, also where XLA would rather have it otherwise.
    const xla::Shape results = xla::ShapeUtil::MakeTupleShape(std::vector<xla::Shape>(shapes.begin(), shapes.begin() + n));
    const xla::XlaOp call =
        xla::CustomCallWithLayout(context->builder(), "keras_lrsched_orthogonalize", operands, results, shapes, /*opaque=*/"",
                                  /*has_side_effect=*/false, /*output_operand_aliasing=*/{}, /*literal=*/nullptr,
                                  xla::CustomCallSchedule::SCHEDULE_NONE, xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    for (int i = 0; i < n; ++i) context->SetOutput(i, xla::GetTupleElement(call, i));
  }
};

// REGISTER_XLA_OP is heeded only before the first XLA compilation of a process; this is always.
REGISTER_KERNEL_BUILDER(Name("KerasLrschedOrthogonalize").Device("XLA_CPU_JIT"), XlaOrthogonalizeOp);

}  // namespace keras_lrsched
