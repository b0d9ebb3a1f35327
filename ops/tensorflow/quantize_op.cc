// KerasLrschedQuantize, KerasLrschedFakeQuantize and KerasLrschedDequantize: functions of tensors, on CPU.
#include <vector>

#include "../kernels/quantize.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace keras_lrsched {

using namespace tensorflow;  // NOLINT: its macros need it
using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

constexpr int64_t kChunk = 32768;  // entries, about: what a chunk costs

absl::Status Check(const klr_quantizer& quantizer) {
  return klr_quantize_valid(&quantizer) ? absl::OkStatus()
                                        : absl::InvalidArgumentError("KerasLrschedQuantize: there is no such quantization.");
}

// `numbers` are those of a klr_quantizer after its shape: rows, block_rows, block_columns, element, rule, stochastic.
absl::Status Describe(const std::vector<int64_t>& numbers, const int64_t shape[3], klr_quantizer* quantizer) {
  if (numbers.size() != 6) return absl::InvalidArgumentError("KerasLrschedQuantize: there must be six numbers.");
  *quantizer = {};
  quantizer->outer = shape[0], quantizer->columns = shape[1], quantizer->inner = shape[2];
  quantizer->rows = numbers[0], quantizer->block_rows = numbers[1], quantizer->block_columns = numbers[2];
  quantizer->element = static_cast<int32_t>(numbers[3]), quantizer->rule = static_cast<int32_t>(numbers[4]);
  quantizer->stochastic = static_cast<int32_t>(numbers[5]);
  return Check(*quantizer);
}

absl::Status ReadInput(OpKernelContext* context, const std::vector<int64_t>& numbers, klr_quantizer* quantizer) {
  const Tensor &x = context->input(0), &seed = context->input(1), &signs = context->input(2);
  if (x.dims() != 3 || seed.NumElements() != 2) {
    return absl::InvalidArgumentError("KerasLrschedQuantize: x must have three axes, and seed two numbers.");
  }
  const int64_t shape[3] = {x.dim_size(0), x.dim_size(1), x.dim_size(2)};
  TF_RETURN_IF_ERROR(Describe(numbers, shape, quantizer));
  quantizer->dtype = x.dtype() == DT_BFLOAT16 ? KLR_X_BFLOAT16 : KLR_X_FLOAT32;
  for (int i = 0; i < 2; ++i) quantizer->seed[i] = static_cast<uint32_t>(seed.flat<int32>()(i));
  quantizer->hadamard = static_cast<int32_t>(signs.NumElements()), quantizer->signs = signs.flat<float>().data();
  return Check(*quantizer);
}

template <class F>
void Spread(OpKernelContext* context, const klr_quantizer& quantizer, F f) {
  auto* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
  workers->ParallelFor(klr_quantize_chunks(&quantizer), kChunk, f);
}

// {factor, scale} of the tensor, for formats that have them.
void FitTensor(OpKernelContext* context, const klr_quantizer& quantizer, const void* x, float tensor[2]) {
  if (klr_quantize_phases(&quantizer) == 1) return;
  std::vector<uint32_t> amax(klr_quantize_chunks(&quantizer));
  Spread(context, quantizer, [&](int64_t begin, int64_t end) { klr_quantize_amax(&quantizer, x, begin, end, amax.data()); });
  klr_quantize_fit(&quantizer, amax.data(), tensor);
}

// The shapes of codes and scales, as far as they are known.
absl::Status StoredShapes(InferenceContext* c) {
  ShapeHandle x;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 3, &x));
  std::vector<int64_t> numbers;
  TF_RETURN_IF_ERROR(c->GetAttr("numbers", &numbers));
  int64_t shape[3] = {c->Value(c->Dim(x, 0)), c->Value(c->Dim(x, 1)), c->Value(c->Dim(x, 2))};
  const bool known = shape[0] >= 0 && shape[1] >= 0 && shape[2] >= 0;
  if (known) {
    klr_quantizer quantizer;
    klr_stored stored;
    TF_RETURN_IF_ERROR(Describe(numbers, shape, &quantizer));
    klr_quantize_stored(&quantizer, &stored);
    c->set_output(0, c->Matrix(stored.code_rows, stored.code_bytes));
    c->set_output(1, c->Matrix(stored.scale_rows, stored.scale_columns));
  } else {
    c->set_output(0, c->Matrix(c->UnknownDim(), c->UnknownDim()));
    c->set_output(1, c->Matrix(c->UnknownDim(), c->UnknownDim()));
  }
  c->set_output(2, c->Vector(1));
  return absl::OkStatus();
}

// `signs`: of a Hadamard transform that comes first, which has as many entries; none where there is none.
REGISTER_OP("KerasLrschedQuantize")
    .Input("x: T")
    .Input("seed: int32")
    .Input("signs: float")
    .Output("codes: uint8")
    .Output("scales: scale_type")
    .Output("tensor_scale: float")
    .Attr("T: {float, bfloat16}")
    .Attr("scale_type: {float, uint8}")
    .Attr("numbers: list(int)")
    .SetShapeFn(StoredShapes);

REGISTER_OP("KerasLrschedFakeQuantize")
    .Input("x: T")
    .Input("seed: int32")
    .Input("signs: float")
    .Output("y: T")
    .Attr("T: {float, bfloat16}")
    .Attr("numbers: list(int)")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      return absl::OkStatus();
    });

// `outer` is -1 where it follows from the number of rows of codes.
REGISTER_OP("KerasLrschedDequantize")
    .Input("codes: uint8")
    .Input("scales: scale_type")
    .Input("tensor_scale: float")
    .Output("y: float")
    .Attr("scale_type: {float, uint8}")
    .Attr("sizes: list(int)")
    .Attr("numbers: list(int)")
    .SetShapeFn([](InferenceContext* c) {
      std::vector<int64_t> sizes;
      TF_RETURN_IF_ERROR(c->GetAttr("sizes", &sizes));
      if (sizes.size() != 3) return absl::InvalidArgumentError("KerasLrschedDequantize: there must be three sizes.");
      const DimensionHandle outer = sizes[0] < 0 ? c->UnknownDim() : c->MakeDim(sizes[0]);
      c->set_output(0, c->MakeShape({outer, c->MakeDim(sizes[1]), c->MakeDim(sizes[2])}));
      return absl::OkStatus();
    });

class QuantizeOp : public OpKernel {
 public:
  explicit QuantizeOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("numbers", &numbers_));
  }

  void Compute(OpKernelContext* context) override {
    klr_quantizer quantizer;
    OP_REQUIRES_OK(context, ReadInput(context, numbers_, &quantizer));
    klr_stored stored;
    klr_quantize_stored(&quantizer, &stored);
    Tensor *codes, *scales, *tensor_scale;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({stored.code_rows, stored.code_bytes}), &codes));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({stored.scale_rows, stored.scale_columns}), &scales));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({1}), &tensor_scale));
    OP_REQUIRES(context, DataTypeSize(scales->dtype()) == stored.scale_bytes,
                absl::InvalidArgumentError("KerasLrschedQuantize: the scales of this format have another type."));
    const void* x = context->input(0).data();
    float tensor[2] = {1, 1};
    FitTensor(context, quantizer, x, tensor);
    tensor_scale->flat<float>()(0) = tensor[1];
    Spread(context, quantizer, [&](int64_t begin, int64_t end) {
      klr_quantize(&quantizer, x, tensor, begin, end, codes->flat<uint8>().data(), scales->data());
    });
  }

 private:
  std::vector<int64_t> numbers_;
};

class FakeQuantizeOp : public OpKernel {
 public:
  explicit FakeQuantizeOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("numbers", &numbers_));
  }

  void Compute(OpKernelContext* context) override {
    klr_quantizer quantizer;
    OP_REQUIRES_OK(context, ReadInput(context, numbers_, &quantizer));
    Tensor* y;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &y));
    const void* x = context->input(0).data();
    float tensor[2] = {1, 1};
    FitTensor(context, quantizer, x, tensor);
    Spread(context, quantizer,
           [&](int64_t begin, int64_t end) { klr_fake_quantize(&quantizer, x, tensor, begin, end, y->data()); });
  }

 private:
  std::vector<int64_t> numbers_;
};

class DequantizeOp : public OpKernel {
 public:
  explicit DequantizeOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("numbers", &numbers_));
    OP_REQUIRES_OK(context, context->GetAttr("sizes", &sizes_));
    OP_REQUIRES(context, sizes_.size() == 3, absl::InvalidArgumentError("KerasLrschedDequantize: there must be three sizes."));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &codes = context->input(0), &scales = context->input(1), &tensor_scale = context->input(2);
    int64_t shape[3] = {sizes_[0], sizes_[1], sizes_[2]};
    if (shape[0] < 0 && codes.dims() == 2) shape[0] = codes.dim_size(0) / shape[2];
    klr_quantizer quantizer;
    OP_REQUIRES_OK(context, Describe(numbers_, shape, &quantizer));
    klr_stored stored;
    klr_quantize_stored(&quantizer, &stored);
    OP_REQUIRES(context,
                codes.NumElements() == stored.code_rows * stored.code_bytes &&
                    scales.NumElements() == stored.scale_rows * stored.scale_columns &&
                    DataTypeSize(scales.dtype()) == stored.scale_bytes && tensor_scale.NumElements() == 1,
                absl::InvalidArgumentError("KerasLrschedDequantize: codes or scales have a wrong shape."));
    Tensor* y;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({shape[0], shape[1], shape[2]}), &y));
    Spread(context, quantizer, [&](int64_t begin, int64_t end) {
      klr_dequantize(&quantizer, codes.flat<uint8>().data(), scales.data(), tensor_scale.flat<float>().data(), begin, end,
                     y->data());
    });
  }

 private:
  std::vector<int64_t> numbers_, sizes_;
};

REGISTER_KERNEL_BUILDER(Name("KerasLrschedQuantize").Device(DEVICE_CPU), QuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedFakeQuantize").Device(DEVICE_CPU), FakeQuantizeOp);
REGISTER_KERNEL_BUILDER(Name("KerasLrschedDequantize").Device(DEVICE_CPU), DequantizeOp);

}  // namespace keras_lrsched
