// The ops of quantization where XLA compiles the graph: a custom call each.
#include <string>
#include <vector>

#include "../kernels/quantize.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tensorflow/compiler/tf2xla/type_util.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/shape_util.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

class XlaOp : public XlaOpKernel {
 public:
  explicit XlaOp(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("numbers", &numbers_));
    OP_REQUIRES(context, numbers_.size() == 6, absl::InvalidArgumentError("KerasLrschedQuantize: there must be six numbers."));
  }

 protected:
  // What is stored for a tensor of this shape.
  absl::Status Describe(const int64_t shape[3], klr_stored* stored) const {
    klr_quantizer quantizer = {};
    quantizer.outer = shape[0], quantizer.columns = shape[1], quantizer.inner = shape[2];
    quantizer.rows = numbers_[0], quantizer.block_rows = numbers_[1], quantizer.block_columns = numbers_[2];
    quantizer.element = static_cast<int32_t>(numbers_[3]), quantizer.rule = static_cast<int32_t>(numbers_[4]);
    if (!klr_quantize_valid(&quantizer)) {
      return absl::InvalidArgumentError("KerasLrschedQuantize: there is no such quantization.");
    }
    klr_quantize_stored(&quantizer, stored);
    return absl::OkStatus();
  }

  // All tensors lie row by row, which XLA might change elsewhere. An error is kept by the builder.
  xla::XlaOp Call(XlaOpKernelContext* context, const std::string& target, const xla::Shape& result) const {
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> shapes;
    for (int i = 0; i < context->num_inputs(); ++i) {
      auto shape = context->InputXlaShape(i);
      if (!shape.ok()) return context->builder()->ReportError(shape.status());
      operands.push_back(context->Input(i));
      shapes.push_back(xla::ShapeUtil::MakeShape(shape->element_type(), shape->dimensions()));
    }
    return xla::CustomCallWithLayout(context->builder(), target, operands, result, shapes,
                                     absl::StrFormat("{numbers = array<i64: %s>}", absl::StrJoin(numbers_, ", ")),
                                     /*has_side_effect=*/false, {}, /*literal=*/nullptr, xla::CustomCallSchedule::SCHEDULE_NONE,
                                     xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
  }

  std::vector<int64_t> numbers_;
};

class XlaQuantizeOp : public XlaOp {
 public:
  explicit XlaQuantizeOp(OpKernelConstruction* context) : XlaOp(context) {
    OP_REQUIRES_OK(context, context->GetAttr("scale_type", &scale_type_));
  }

  void Compile(XlaOpKernelContext* context) override {
    const TensorShape x = context->InputShape(0);
    OP_REQUIRES(context, x.dims() == 3, absl::InvalidArgumentError("KerasLrschedQuantize: x must have three axes."));
    const int64_t shape[3] = {x.dim_size(0), x.dim_size(1), x.dim_size(2)};
    klr_stored stored;
    OP_REQUIRES_OK(context, Describe(shape, &stored));
    const xla::PrimitiveType scale_type = scale_type_ == DT_FLOAT ? xla::F32 : xla::U8;
    const xla::Shape result =
        xla::ShapeUtil::MakeTupleShape({xla::ShapeUtil::MakeShape(xla::U8, {stored.code_rows, stored.code_bytes}),
                                        xla::ShapeUtil::MakeShape(scale_type, {stored.scale_rows, stored.scale_columns}),
                                        xla::ShapeUtil::MakeShape(xla::F32, {1})});
    const xla::XlaOp call = Call(context, "keras_lrsched_quantize", result);
    for (int i = 0; i < 3; ++i) context->SetOutput(i, xla::GetTupleElement(call, i));
  }

 private:
  DataType scale_type_;
};

class XlaFakeQuantizeOp : public XlaOp {
 public:
  using XlaOp::XlaOp;

  void Compile(XlaOpKernelContext* context) override {
    auto shape = context->InputXlaShape(0);
    OP_REQUIRES_OK(context, shape.status());
    const xla::Shape result = xla::ShapeUtil::MakeShape(shape->element_type(), shape->dimensions());
    context->SetOutput(0, Call(context, "keras_lrsched_fake_quantize", result));
  }
};

class XlaDequantizeOp : public XlaOp {
 public:
  explicit XlaDequantizeOp(OpKernelConstruction* context) : XlaOp(context) {
    OP_REQUIRES_OK(context, context->GetAttr("sizes", &sizes_));
    OP_REQUIRES(context, sizes_.size() == 3, absl::InvalidArgumentError("KerasLrschedDequantize: there must be three sizes."));
  }

  void Compile(XlaOpKernelContext* context) override {
    const int64_t outer = sizes_[0] < 0 ? context->InputShape(0).dim_size(0) / sizes_[2] : sizes_[0];
    const xla::Shape result = xla::ShapeUtil::MakeShape(xla::F32, {outer, sizes_[1], sizes_[2]});
    context->SetOutput(0, Call(context, "keras_lrsched_dequantize", result));
  }

 private:
  std::vector<int64_t> sizes_;
};

// REGISTER_XLA_OP is heeded only before the first XLA compilation of a process; this is always.
REGISTER_KERNEL_BUILDER(Name("KerasLrschedQuantize").Device("XLA_CPU_JIT"), XlaQuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedFakeQuantize").Device("XLA_CPU_JIT"), XlaFakeQuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedDequantize").Device("XLA_CPU_JIT"), XlaDequantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedQuantize").Device("XLA_GPU_JIT"), XlaQuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedFakeQuantize").Device("XLA_GPU_JIT"), XlaFakeQuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedDequantize").Device("XLA_GPU_JIT"), XlaDequantizeOp);

}  // namespace keras_lrsched
