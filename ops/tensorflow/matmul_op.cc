// KerasLrschedMatmul: the product of two int8 matrices.
#include <string>

#include "../kernels/matmul.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

// Scales have any shape; there are none where the output is int32.
REGISTER_OP("KerasLrschedMatmul")
    .Input("a: int8")
    .Input("b: int8")
    .Input("a_scales: float")
    .Input("b_scales: float")
    .Output("c: output_type")
    .Attr("transpose_a: bool")
    .Attr("transpose_b: bool")
    .Attr("output: {'int32', 'scaled', 'blocks'}")
    .Attr("output_type: {int32, float}")
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      bool transpose_a, transpose_b;
      TF_RETURN_IF_ERROR(context->GetAttr("transpose_a", &transpose_a));
      TF_RETURN_IF_ERROR(context->GetAttr("transpose_b", &transpose_b));
      shape_inference::ShapeHandle a, b;
      TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 2, &a));
      TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 2, &b));
      shape_inference::DimensionHandle k;
      TF_RETURN_IF_ERROR(context->Merge(context->Dim(a, transpose_a ? 0 : 1), context->Dim(b, transpose_b ? 1 : 0), &k));
      context->set_output(0, context->Matrix(context->Dim(a, transpose_a ? 1 : 0), context->Dim(b, transpose_b ? 0 : 1)));
      return absl::OkStatus();
    });

class MatmulOp : public OpKernel {
 public:
  explicit MatmulOp(OpKernelConstruction* context) : OpKernel(context) {
    std::string output;
    DataType type;
    OP_REQUIRES_OK(context, context->GetAttr("transpose_a", &transpose_a_));
    OP_REQUIRES_OK(context, context->GetAttr("transpose_b", &transpose_b_));
    OP_REQUIRES_OK(context, context->GetAttr("output", &output));
    OP_REQUIRES_OK(context, context->GetAttr("output_type", &type));
    output_ = output == "int32" ? KLR_MATMUL_INT32 : output == "scaled" ? KLR_MATMUL_SCALED : KLR_MATMUL_BLOCKS;
    OP_REQUIRES(context, (type == DT_INT32) == (output_ == KLR_MATMUL_INT32),
                absl::InvalidArgumentError("KerasLrschedMatmul: the output cannot have this type."));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &a = context->input(0), &b = context->input(1), &a_scales = context->input(2), &b_scales = context->input(3);
    OP_REQUIRES(context, a.dims() == 2 && b.dims() == 2,
                absl::InvalidArgumentError("KerasLrschedMatmul: both inputs must be matrices. Received: " +
                                           a.shape().DebugString() + " and " + b.shape().DebugString()));
    klr_matmul product = {};
    product.m = a.dim_size(transpose_a_ ? 1 : 0), product.k = a.dim_size(transpose_a_ ? 0 : 1);
    product.n = b.dim_size(transpose_b_ ? 0 : 1);
    OP_REQUIRES(context, b.dim_size(transpose_b_ ? 1 : 0) == product.k,
                absl::InvalidArgumentError("KerasLrschedMatmul: matrices of shape " + a.shape().DebugString() + " and " +
                                           b.shape().DebugString() + " do not fit."));
    product.a = a.flat<int8>().data(), product.b = b.flat<int8>().data();
    product.a_scales = a_scales.flat<float>().data(), product.a_scales_size = a_scales.NumElements();
    product.b_scales = b_scales.flat<float>().data(), product.b_scales_size = b_scales.NumElements();
    product.transpose_a = transpose_a_, product.transpose_b = transpose_b_;
    product.output = output_, product.instruction_set = -1;
    const char* error = klr_matmul_error(&product);
    OP_REQUIRES(context, error == nullptr, absl::InvalidArgumentError(std::string("KerasLrschedMatmul: ") + error + "."));

    Tensor *c, scratch;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({product.m, product.n}), &c));
    OP_REQUIRES_OK(context, context->allocate_temp(DT_INT8, TensorShape({klr_matmul_scratch(&product)}), &scratch));
    product.c = c->data();
    Run(context, product, scratch.data());
  }

 private:
  static void Run(OpKernelContext* context, const klr_matmul& product, void* scratch) {
    auto* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
    const int64_t depth = product.k + 64;  // cycles of a piece, and, with 128 products in each, of a tile
    workers->ParallelFor(klr_matmul_pieces(&product), 16 * depth,
                         [&](int64_t begin, int64_t end) { klr_matmul_pack(&product, scratch, begin, end); });
    workers->ParallelFor(klr_matmul_tiles(&product), KLR_MATMUL_TILE_ROWS * KLR_MATMUL_TILE_COLUMNS / 128 * depth,
                         [&](int64_t begin, int64_t end) { klr_matmul_compute(&product, scratch, begin, end); });
  }

  bool transpose_a_, transpose_b_;
  int output_;
};

REGISTER_KERNEL_BUILDER(Name("KerasLrschedMatmul").Device(DEVICE_CPU), MatmulOp);

}  // namespace keras_lrsched
