// KerasLrschedOrthogonalize: Newton-Schulz iterations of several matrices.
#include <string>
#include <vector>

#include "../kernels/orthogonalize.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it

// Each tensor is a matrix, or several along its first axes. `coefficients` are a, b, c of each step, `bounds` the factor and
// the summand of the norm.
REGISTER_OP("KerasLrschedOrthogonalize")
    .Input("matrices: n * float")
    .Input("coefficients: float")
    .Input("bounds: float")
    .Output("results: n * float")
    .Attr("n: int >= 1")
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      for (int i = 0; i < context->num_outputs(); ++i) context->set_output(i, context->input(i));
      return absl::OkStatus();
    });

class OrthogonalizeOp : public OpKernel {
 public:
  explicit OrthogonalizeOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const int n = context->num_outputs();
    const Tensor &coefficients = context->input(n), &bounds = context->input(n + 1);
    OP_REQUIRES(context, coefficients.NumElements() % 3 == 0 && bounds.NumElements() == 2,
                absl::InvalidArgumentError("KerasLrschedOrthogonalize: there must be 3 coefficients a step and 2 bounds."));
    std::vector<klr_matrix> matrices;
    for (int i = 0; i < n; ++i) {
      const Tensor& from = context->input(i);
      OP_REQUIRES(context, from.dims() >= 2,
                  absl::InvalidArgumentError("KerasLrschedOrthogonalize: there must be matrices. Received: " +
                                             from.shape().DebugString()));
      Tensor* to;
      OP_REQUIRES_OK(context, context->allocate_output(i, from.shape(), &to));
      const int64_t rows = from.dim_size(from.dims() - 2), columns = from.dim_size(from.dims() - 1), size = rows * columns;
      for (int64_t begin = 0; begin < from.NumElements(); begin += size) {
        matrices.push_back({from.flat<float>().data() + begin, to->flat<float>().data() + begin, rows, columns});
      }
    }
    auto* workers = context->device()->tensorflow_cpu_worker_threads();
    const klr_orthogonalize all = {matrices.data(),
                                   static_cast<int64_t>(matrices.size()),
                                   coefficients.flat<float>().data(),
                                   coefficients.NumElements() / 3,
                                   bounds.flat<float>()(0),
                                   bounds.flat<float>()(1),
                                   workers->num_threads};
    const char* error = klr_orthogonalize_error(&all);
    OP_REQUIRES(context, error == nullptr,
                absl::InvalidArgumentError(std::string("KerasLrschedOrthogonalize: ") + error + "."));
    Tensor scratch;
    OP_REQUIRES_OK(context, context->allocate_temp(DT_INT8, TensorShape({klr_orthogonalize_scratch(&all)}), &scratch));
    for (int64_t phase = 0; phase < klr_orthogonalize_phases(&all); ++phase) {
      const int64_t cycles = klr_orthogonalize_cost(&all, phase) / 16 + 1;
      workers->workers->ParallelFor(klr_orthogonalize_pieces(&all, phase), cycles, [&](int64_t begin, int64_t end) {
        klr_orthogonalize_run(&all, scratch.data(), phase, begin, end);
      });
    }
  }
};

REGISTER_KERNEL_BUILDER(Name("KerasLrschedOrthogonalize").Device(DEVICE_CPU), OrthogonalizeOp);

}  // namespace keras_lrsched
