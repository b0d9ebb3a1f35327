// Work spread over the threads that XLA lends to a handler.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace keras_lrsched {

namespace ffi = xla::ffi;

// Calls f(begin, end) on parts of 0 ... total - 1. The caller works too, and waits for the parts, not for the tasks: if all
// threads of the pool are callers themselves, no task ever starts. One that starts late finds nothing to do.
template <class F>
void ParallelFor(ffi::ThreadPool& pool, int64_t total, const F& f) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto state = std::make_shared<State>();
  const F* function = &f;
  auto work = [state, function, total] {
    for (int64_t k; (k = state->next.fetch_add(1)) < total;) {
      (*function)(k, k + 1);
      if (state->done.fetch_add(1) + 1 == total) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->finished.notify_all();
      }
    }
  };
  const int64_t workers = std::min<int64_t>(pool.num_threads(), total);
  for (int64_t i = 1; i < workers; ++i) pool.Schedule(decltype(work)(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load() == total; });
}

}  // namespace keras_lrsched
