// Multi-tensor updates: one launch covers as many tensors as fit into the arguments of a kernel.
//
// A block works on one chunk of KLR_CHUNK entries, a thread on four neighbors at a time: 16 bytes of float32. Sums are added up
// in an order that depends on sizes alone, so every run gives the same bits.
#include <cuda_runtime.h>

#include <type_traits>

#include "update.h"

#define KLR_ISA device
#include "../ops/kernels/dtypes.h"
#include "../ops/kernels/philox.h"
#include "../ops/kernels/update_formulas.h"

namespace {

using namespace klr::device;  // NOLINT: the formulas

constexpr int kThreads = 256;
constexpr int kTensors = 24;  // their descriptions must fit into 4 KiB of arguments
constexpr int kWide = 4;      // entries of a thread at a time

struct Batch {
  klr_tensor tensors[kTensors];
  int32_t first_chunks[kTensors + 1];
  int32_t n;
};
static_assert(sizeof(Batch) + 64 <= 4096, "a kernel's arguments");

struct Shared {
  const float* rates;
  const float* parameters;
  const uint32_t* seed;
  int stochastic_rounding;
};

template <class T>
struct alignas(kWide * sizeof(T)) Wide {
  T entries[kWide];
};

// The tensor of a block, with its rates, and which of its chunks the block works on.
__device__ klr_tensor tensor_of(const Batch& batch, const Shared& shared, int chunk, int64_t* part) {
  int t = 0;
  while (chunk >= batch.first_chunks[t + 1]) ++t;
  klr_tensor tensor = batch.tensors[t];
  tensor.learning_rate = shared.rates[3 * tensor.index];
  tensor.weight_decay = shared.rates[3 * tensor.index + 1];
  tensor.adapted = shared.rates[3 * tensor.index + 2] != 0;
  *part = chunk - batch.first_chunks[t];
  return tensor;
}

// Calls f(first entry, number of entries, values...) for what falls to this thread; four entries come in one access each.
template <class W, class G, class F>
__device__ void each_four(const klr_tensor& tensor, int64_t part, int slots, F f) {
  const int64_t begin = part * KLR_CHUNK, end = min(begin + KLR_CHUNK, tensor.size);
  const Wide<float> none = {};
  for (int64_t i = begin + kWide * threadIdx.x; i < end; i += kWide * kThreads) {
    Wide<W> w;
    Wide<G> g;
    Wide<float> m = none, v = none;
    const int count = static_cast<int>(min(static_cast<int64_t>(kWide), end - i));
    if (count == kWide) {
      w = *reinterpret_cast<const Wide<W>*>(static_cast<const W*>(tensor.w) + i);
      g = *reinterpret_cast<const Wide<G>*>(static_cast<const G*>(tensor.g) + i);
      m = *reinterpret_cast<const Wide<float>*>(tensor.slots[0] + i);
      if (slots > 1) v = *reinterpret_cast<const Wide<float>*>(tensor.slots[1] + i);
    } else {
      for (int j = 0; j < count; ++j) {
        w.entries[j] = static_cast<const W*>(tensor.w)[i + j];
        g.entries[j] = static_cast<const G*>(tensor.g)[i + j];
        m.entries[j] = tensor.slots[0][i + j];
        if (slots > 1) v.entries[j] = tensor.slots[1][i + j];
      }
    }
    f(i, count, w, g, m, v);
  }
}

template <class T>
__device__ void write_four(T* to, int count, const Wide<T>& values) {
  if (count == kWide) {
    *reinterpret_cast<Wide<T>*>(to) = values;
  } else {
    for (int j = 0; j < count; ++j) to[j] = values.entries[j];
  }
}

template <class Method, class W, class G>
__global__ void __launch_bounds__(kThreads) update(Batch batch, Shared shared, const double* totals) {
  int64_t part;
  const klr_tensor tensor = tensor_of(batch, shared, blockIdx.x, &part);
  const Method method(tensor, shared.parameters, has_sum<Method>::value ? totals + 2 * tensor.index : nullptr);
  constexpr bool in_blocks = Method::in_blocks;
  constexpr bool state_is_set = has_sum<Method>::value && Method::slots > 1;  // by `sum`
  constexpr int slots = in_blocks ? 1 : Method::slots;
  each_four<W, G>(tensor, part, slots, [&](int64_t i, int count, Wide<W> w, const Wide<G>& g, Wide<float> m, Wide<float> v) {
    uint32_t random[kWide];
    if (std::is_same<W, bfloat16>::value && shared.stochastic_rounding) {
      for (int j = 0; j < kWide; ++j) random[j] = random_bits(i + j, tensor.index, shared.seed);
    }
    for (int j = 0; j < count; ++j) {
      if (in_blocks) v.entries[j] = tensor.slots[1][(i + j) / tensor.inner % tensor.blocks];
      const float next = method(load(w.entries[j]), load(g.entries[j]), m.entries[j], v.entries[j]);
      if constexpr (std::is_same<W, bfloat16>::value) {
        if (shared.stochastic_rounding) {
          store(w.entries[j], next, random[j]);
          continue;
        }
      }
      store(w.entries[j], next);
    }
    write_four(static_cast<W*>(tensor.w) + i, count, w);
    if (!state_is_set) write_four(tensor.slots[0] + i, count, m);
    if (!state_is_set && slots > 1) write_four(tensor.slots[1] + i, count, v);
  });
}

// Two sums of a chunk. Each thread adds in its own order, then threads in pairs, always the same ones.
template <class Method, class W, class G>
__global__ void __launch_bounds__(kThreads) sum(Batch batch, Shared shared, double* sums) {
  __shared__ double a[kThreads], b[kThreads];
  int64_t part;
  const klr_tensor tensor = tensor_of(batch, shared, blockIdx.x, &part);
  const Method method(tensor, shared.parameters, nullptr);
  float own_a = 0, own_b = 0;
  each_four<W, G>(tensor, part, Method::slots,
                  [&](int64_t i, int count, const Wide<W>& w, const Wide<G>& g, Wide<float> m, Wide<float> v) {
                    for (int j = 0; j < count; ++j) {
                      float x, y;
                      method.sum(load(w.entries[j]), load(g.entries[j]), m.entries[j], v.entries[j], x, y);
                      own_a += x * x;
                      own_b += y * y;
                    }
                    if (Method::slots > 1) {
                      write_four(tensor.slots[0] + i, count, m);
                      write_four(tensor.slots[1] + i, count, v);
                    }
                  });
  a[threadIdx.x] = own_a;
  b[threadIdx.x] = own_b;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) a[threadIdx.x] += a[threadIdx.x + half], b[threadIdx.x] += b[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sums[2 * blockIdx.x] = a[0], sums[2 * blockIdx.x + 1] = b[0];
}

// One block a tensor: the sums of its chunks.
__global__ void __launch_bounds__(kThreads) reduce(Batch batch, const double* sums, double* totals) {
  __shared__ double a[kThreads], b[kThreads];
  double own_a = 0, own_b = 0;
  for (int chunk = batch.first_chunks[blockIdx.x] + threadIdx.x; chunk < batch.first_chunks[blockIdx.x + 1];
       chunk += kThreads) {
    own_a += sums[2 * chunk];
    own_b += sums[2 * chunk + 1];
  }
  a[threadIdx.x] = own_a;
  b[threadIdx.x] = own_b;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) a[threadIdx.x] += a[threadIdx.x + half], b[threadIdx.x] += b[threadIdx.x + half];
  }
  if (threadIdx.x == 0) {
    const int place = batch.tensors[blockIdx.x].index;
    totals[2 * place] = a[0], totals[2 * place + 1] = b[0];
  }
}

// Adam-mini: how many blocks of weights a block of threads works on. If the entries of a block of weights lie apart, those of
// its neighbors lie between them, and are read with them.
KLR_BOTH int together(const klr_tensor& tensor) { return tensor.inner == 1 ? 32 : 1; }

// The mean of the squared gradients of some blocks of weights goes into their second moments. The order of additions depends on
// sizes alone.
template <class G>
__global__ void __launch_bounds__(kThreads) moments(Batch batch, Shared shared) {
  __shared__ double sums[kThreads];
  int64_t part;
  const klr_tensor tensor = tensor_of(batch, shared, blockIdx.x, &part);
  const AdamMini method(tensor, shared.parameters, nullptr);
  const int width = together(tensor), column = threadIdx.x % width, rows = kThreads / width;
  const int64_t block = part * width + column, entries = tensor.size / tensor.blocks, stride = tensor.blocks * tensor.inner;
  double sum = 0;
  for (int64_t i = threadIdx.x / width; i < entries && block < tensor.blocks; i += rows) {
    const int64_t place = i / tensor.inner * stride + block * tensor.inner + i % tensor.inner;
    const float g = method.p.gradient_scale * load(static_cast<const G*>(tensor.g)[place]);
    sum += g * g;
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= width || block >= tensor.blocks) return;
  for (int row = 1; row < rows; ++row) sum += sums[row * width + column];
  float& v = tensor.slots[1][block];
  v = method.p.beta_2 * v + method.p.one_minus_beta_2 * static_cast<float>(sum / static_cast<double>(entries));
}

// The same tensors, cut into the pieces of `moments`.
Batch in_pieces(const Batch& batch) {
  Batch pieces = batch;
  for (int t = 0; t < batch.n; ++t) {
    const int64_t width = together(batch.tensors[t]), blocks = batch.tensors[t].size > 0 ? batch.tensors[t].blocks : 0;
    pieces.first_chunks[t + 1] = pieces.first_chunks[t] + static_cast<int32_t>((blocks + width - 1) / width);
  }
  return pieces;
}

template <class Method, class W, class G>
void launch(const Batch& batch, const Shared& shared, double* totals, double* sums, cudaStream_t stream) {
  const int chunks = batch.first_chunks[batch.n];
  if (chunks == 0) return;
  if constexpr (has_sum<Method>::value) {
    sum<Method, W, G><<<chunks, kThreads, 0, stream>>>(batch, shared, sums);
    reduce<<<batch.n, kThreads, 0, stream>>>(batch, sums, totals);
  }
  if constexpr (Method::in_blocks) {
    const Batch pieces = in_pieces(batch);
    moments<G><<<pieces.first_chunks[batch.n], kThreads, 0, stream>>>(pieces, shared);
  }
  update<Method, W, G><<<chunks, kThreads, 0, stream>>>(batch, shared, totals);
}

using Launch = void (*)(const Batch&, const Shared&, double*, double*, cudaStream_t);

template <class Method>
Launch choose(int w_dtype, int g_dtype) {
  const Launch launches[2][2] = {{launch<Method, float, float>, launch<Method, float, bfloat16>},
                                 {launch<Method, bfloat16, float>, launch<Method, bfloat16, bfloat16>}};
  return launches[w_dtype][g_dtype];
}

Launch choose(int method, int w_dtype, int g_dtype) {
#define KLR_CASE(ID, Struct, ...) \
  case KLR_##ID:                  \
    return choose<Struct>(w_dtype, g_dtype);
  switch (method) {
    KLR_UPDATE_RULES(KLR_CASE)
    default:
      return nullptr;
  }
#undef KLR_CASE
}

int64_t chunks_of(const klr_tensor& tensor) { return (tensor.size + KLR_CHUNK - 1) / KLR_CHUNK; }

}  // namespace

int64_t klr_cuda_workspace(int method, const klr_tensor* tensors, int64_t n) {
  if (!klr_has_sums(method) || klr_in_blocks(method)) return 0;
  int64_t doubles = 2 * n;  // the totals; then the sums of one batch, whose next batch comes after it in the stream
  for (int64_t t = 0; t < n; ++t) doubles += 2 * chunks_of(tensors[t]);
  return doubles * static_cast<int64_t>(sizeof(double));
}

int klr_cuda_update(int method, const klr_tensor* tensors, int64_t n, const float* rates, const float* parameters,
                    const uint32_t* seed, int stochastic_rounding, void* workspace, void* stream) {
  const Shared shared = {rates, parameters, seed, stochastic_rounding};
  double* totals = static_cast<double*>(workspace);
  double* sums = totals == nullptr ? nullptr : totals + 2 * n;
  for (int dtypes = 0; dtypes < 4; ++dtypes) {  // a batch has one dtype of variables and one of gradients
    const Launch launch = choose(method, dtypes / 2, dtypes % 2);
    if (launch == nullptr) return cudaErrorInvalidValue;
    Batch batch = {};
    const auto send = [&] {
      if (batch.n > 0) launch(batch, shared, totals, sums, static_cast<cudaStream_t>(stream));
      batch.n = 0;
    };
    for (int64_t t = 0; t < n; ++t) {
      if (tensors[t].w_dtype != dtypes / 2 || tensors[t].g_dtype != dtypes % 2) continue;
      const int64_t before = batch.n == 0 ? 0 : batch.first_chunks[batch.n], after = before + chunks_of(tensors[t]);
      if (after > INT32_MAX) return cudaErrorInvalidValue;
      batch.tensors[batch.n] = tensors[t];
      batch.first_chunks[0] = 0;
      batch.first_chunks[++batch.n] = static_cast<int32_t>(after);
      if (batch.n == kTensors) send();
    }
    send();
  }
  return cudaGetLastError();
}

const char* klr_cuda_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int klr_cuda_devices(void) {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
