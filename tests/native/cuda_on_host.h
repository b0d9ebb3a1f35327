// As much of CUDA as custom_ops_cuda/update.cu uses, on the host: a thread of the host for each of a block, one block at a
// time.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __shared__ static  // blocks come one after the other

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaSuccess = 0, cudaErrorInvalidValue = 1;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error"; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }

struct Place {
  unsigned x;
};
inline thread_local Place threadIdx, blockIdx;
inline pthread_barrier_t all_threads;

inline void __syncthreads() { pthread_barrier_wait(&all_threads); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
using std::min;

// kernel<<<blocks, threads, 0, stream>>>(arguments...)
template <class... Parameters, class... Arguments>
void launch_on_host(void (*kernel)(Parameters...), int blocks, int threads, cudaStream_t, const Arguments&... arguments) {
  pthread_barrier_init(&all_threads, nullptr, threads);
  std::vector<std::thread> others;
  for (int thread = 0; thread < threads; ++thread) {
    others.emplace_back([&, thread] {
      threadIdx.x = thread;
      for (int block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        kernel(arguments...);
        __syncthreads();
      }
    });
  }
  for (std::thread& other : others) other.join();
  pthread_barrier_destroy(&all_threads);
}
