// Quantization: a team of threads works on a block of the tensor, as many teams as fit into a block of threads beside it.
//
// A tensor is read from memory once where each of its blocks has a scale of its own: what a thread cannot hold of a block it
// reads again from the cache. Where blocks share a number, its largest magnitude is found before, by integer maxima, whose
// order does not matter: every run gives the same bits.
#include <cuda_runtime.h>

#include <algorithm>

#include "quantize.h"

#define KLR_ISA device
#include "quantize_blocks.h"

namespace {

using namespace klr::device;  // NOLINT: the formulas

constexpr int kThreads = 256;
constexpr int64_t kMaximumGrid = 2048;  // of what ends with one atomic operation a block of threads
constexpr int64_t kGrid = 1 << 30;

// See quantize_blocks.h.
struct Team {
  uint32_t* shared;
  float* errors;
  int lane, size, index, teams, stride;

  __device__ Team(const Plan& p, uint32_t* shared, float* errors_of_all) : shared(shared), size(p.team) {
    const int thread = static_cast<int>(threadIdx.x);
    teams = kThreads / size;
    stride = p.side_by_side ? teams : 1;
    lane = p.side_by_side ? thread / teams : thread % size;
    index = p.side_by_side ? thread % teams : thread / size;
    errors = errors_of_all + index * p.block_rows * p.block_columns;
  }

  __device__ bool in_warp() const { return stride == 1 && size <= 32; }

  __device__ uint32_t largest(uint32_t own) {
    if (in_warp()) {
      for (int half = size / 2; half > 0; half /= 2) own = max(own, __shfl_xor_sync(~0u, own, half));
      return own;
    }
    uint32_t* mine = shared + threadIdx.x;
    *mine = own;
    for (int half = size / 2; half > 0; half /= 2) {
      __syncthreads();
      if (lane < half) *mine = max(*mine, mine[half * stride]);
    }
    __syncthreads();
    own = mine[-lane * stride];
    __syncthreads();
    return own;
  }

  __device__ void sync() {
    if (in_warp()) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
};

// Calls f(block, team) for the blocks of this thread's team; it may be behind the last one.
template <class F>
__device__ void each_block(const Plan& p, F f) {
  __shared__ uint32_t shared[kThreads];
  extern __shared__ float errors[];
  Team team(p, shared, errors);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * team.teams; first < p.blocks;
       first += static_cast<int64_t>(gridDim.x) * team.teams) {
    f(first + team.index, team);
  }
}

// One number for the tensor, or one for each of its rows.
template <class T>
__global__ void __launch_bounds__(kThreads) amax_of(Plan p, const T* x, uint32_t* amax) {
  __shared__ uint32_t of_warps[kThreads / 32];
  uint32_t own = 0;
  each_block(p, [&](int64_t block, Team& team) {
    const uint32_t largest = amax_of_block(p, x, block, team);
    if (p.source == kOfRow) {
      if (team.lane == 0 && block < p.blocks) atomicMax(amax + place_of(p, block).scale, largest);
    } else if (p.source == kOfTensor || largest < kInfinity) {  // in NVFP4, blocks with NaN or infinity do not count
      own = max(own, largest);
    }
  });
  if (p.source == kOfRow) return;
  for (int half = 16; half > 0; half /= 2) own = max(own, __shfl_xor_sync(~0u, own, half));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (const uint32_t other : of_warps) own = max(own, other);
    atomicMax(amax, own);
  }
}

__global__ void fit_tensor(int rule, const uint32_t* amax, float* tensor) { fit_nvfp4_tensor(rule, *amax, tensor); }

template <class E, class T>
__global__ void __launch_bounds__(kThreads)
    quantize(Plan p, const T* x, Shared shared, uint8_t* codes, void* scales, float* tensor_scale) {
  each_block(p, [&](int64_t block, Team& team) { quantize_block<E>(p, x, shared, block, team, codes, scales); });
  if (blockIdx.x == 0 && threadIdx.x == 0) *tensor_scale = shared.tensor != nullptr ? shared.tensor[1] : 1;
}

template <class E, class T>
__global__ void __launch_bounds__(kThreads) fake_quantize(Plan p, const T* x, Shared shared, T* y) {
  each_block(p, [&](int64_t block, Team& team) { fake_quantize_block<E>(p, x, shared, block, team, y); });
}

template <class E>
__global__ void __launch_bounds__(kThreads)
    dequantize(Plan p, const uint8_t* codes, const void* scales, const float* tensor_scale, float* y) {
  each_block(p, [&](int64_t block, Team& team) { dequantize_block<E>(p, codes, scales, tensor_scale, block, team, y); });
}

unsigned grid(const Plan& p, int64_t most) {
  const int64_t teams = kThreads / p.team;
  return static_cast<unsigned>(std::min((p.blocks + teams - 1) / teams, most));
}

// Bytes for the errors of four over six.
size_t error_bytes(const Plan& p) {
  return p.rule == KLR_FOUR_OVER_SIX ? kThreads / p.team * p.block_rows * p.block_columns * sizeof(float) : 0;
}

template <class Kernel>
cudaError_t allow(Kernel kernel, size_t bytes) {
  if (bytes <= 40 * 1024) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

// Calls f with the element as a type.
template <class F>
cudaError_t with_element(int element, F f) {
#define KLR_CASE(ID, ...) \
  case KLR_##ID:          \
    return f(ID());
  switch (element) {
    KLR_QUANTIZER_ELEMENTS(KLR_CASE)
    default:
      return cudaErrorInvalidValue;
  }
#undef KLR_CASE
}

// Calls f with the tensor as a pointer to what its numbers are.
template <class F>
cudaError_t with_dtype(int dtype, const void* x, F f) {
  if (dtype == KLR_X_FLOAT32) return f(static_cast<const float*>(x));
  return f(static_cast<const bfloat16*>(x));
}

int bytes_of(int dtype) { return dtype == KLR_X_FLOAT32 ? 4 : 2; }

// How many largest magnitudes are found before: of the tensor, of rows, or none.
int64_t maxima(const Plan& p) { return p.source == kOfRow ? p.rows : p.source == kOfTensor || klr::is_nvfp4(p.rule) ? 1 : 0; }

cudaError_t find_amax(const klr_quantizer& q, const void* x, uint32_t* amax, cudaStream_t stream) {
  Plan p = plan_of(q, true);
  set_alignment(&p, bytes_of(q.dtype), x, x, nullptr);
  const int64_t n = maxima(p);
  const cudaError_t error = cudaMemsetAsync(amax, 0, n * sizeof(uint32_t), stream);
  if (error != cudaSuccess) return error;
  return with_dtype(q.dtype, x, [&](auto* from) {
    amax_of<<<grid(p, p.source == kOfRow ? kGrid : kMaximumGrid), kThreads, 0, stream>>>(p, from, amax);
    return cudaGetLastError();
  });
}

// What blocks share: first the two numbers of a tensor in NVFP4, then largest magnitudes.
cudaError_t share(const klr_quantizer& q, const void* x, const uint32_t* seed, void* workspace, Shared* shared,
                  cudaStream_t stream) {
  *shared = {seed, nullptr, nullptr};
  if (maxima(plan_of(q, true)) == 0) return cudaSuccess;
  float* tensor = static_cast<float*>(workspace);
  uint32_t* amax = reinterpret_cast<uint32_t*>(tensor + 2);
  shared->amax = amax;
  const cudaError_t error = find_amax(q, x, amax, stream);
  if (error != cudaSuccess || !klr::is_nvfp4(q.rule)) return error;
  shared->tensor = tensor;
  fit_tensor<<<1, 1, 0, stream>>>(q.rule, amax, tensor);
  return cudaGetLastError();
}

}  // namespace

int64_t klr_cuda_quantize_workspace(const klr_quantizer* q) {
  const int64_t n = maxima(plan_of(*q, true));
  return n == 0 ? 0 : 2 * sizeof(float) + n * sizeof(uint32_t);
}

int klr_cuda_quantize_amax(const klr_quantizer* q, const void* x, uint32_t* amax, void* stream) {
  klr_quantizer whole = *q;
  if (!klr::is_nvfp4(q->rule)) whole.block_rows = whole.block_columns = 0, whole.rule = KLR_EXACT;
  return find_amax(whole, x, amax, static_cast<cudaStream_t>(stream));
}

int klr_cuda_quantize(const klr_quantizer* q, const void* x, const uint32_t* seed, void* workspace, uint8_t* codes,
                      void* scales, float* tensor_scale, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  Shared shared;
  cudaError_t error = share(*q, x, seed, workspace, &shared, stream);
  if (error != cudaSuccess) return error;
  Plan p = plan_of(*q, false);
  set_alignment(&p, bytes_of(q->dtype), x, x, codes);
  return with_element(q->element, [&](auto element) {
    return with_dtype(q->dtype, x, [&](auto* from) {
      using E = decltype(element);
      using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
      if ((error = allow(quantize<E, T>, error_bytes(p))) != cudaSuccess) return error;
      quantize<E, T><<<grid(p, kGrid), kThreads, error_bytes(p), stream>>>(p, from, shared, codes, scales, tensor_scale);
      return cudaGetLastError();
    });
  });
}

int klr_cuda_fake_quantize(const klr_quantizer* q, const void* x, const uint32_t* seed, void* workspace, void* y,
                           void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  Shared shared;
  cudaError_t error = share(*q, x, seed, workspace, &shared, stream);
  if (error != cudaSuccess) return error;
  Plan p = plan_of(*q, true);
  set_alignment(&p, bytes_of(q->dtype), x, y, nullptr);
  return with_element(q->element, [&](auto element) {
    return with_dtype(q->dtype, x, [&](auto* from) {
      using E = decltype(element);
      using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
      if ((error = allow(fake_quantize<E, T>, error_bytes(p))) != cudaSuccess) return error;
      fake_quantize<E, T><<<grid(p, kGrid), kThreads, error_bytes(p), stream>>>(p, from, shared, static_cast<T*>(y));
      return cudaGetLastError();
    });
  });
}

int klr_cuda_dequantize(const klr_quantizer* q, const uint8_t* codes, const void* scales, const float* tensor_scale, void* y,
                        void* stream) {
  Plan p = plan_of(*q, false);
  set_alignment(&p, sizeof(float), y, y, codes);
  return with_element(q->element, [&](auto element) {
    dequantize<decltype(element)><<<grid(p, kGrid), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        p, codes, scales, tensor_scale, static_cast<float*>(y));
    return cudaGetLastError();
  });
}

const char* klr_cuda_quantize_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int klr_cuda_quantize_devices(void) {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
