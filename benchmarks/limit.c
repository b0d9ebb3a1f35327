// What memory allows: loops that read and write as an update does, and compute next to nothing.
#include <stdint.h>

#define ARRAYS float *restrict w, float *restrict m, float *restrict v, const float *restrict g, float *restrict sum

void one_slot(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    m[i] += g[i];
    w[i] += m[i];
  }
}

void two_slots(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    m[i] += g[i];
    v[i] += g[i];
    w[i] += m[i] + v[i];
  }
}

void lamb_first(ARRAYS, int64_t begin, int64_t end) {
  float a = 0;
  for (int64_t i = begin; i < end; ++i) {
    m[i] += g[i];
    v[i] += g[i];
    a += w[i] + m[i] + v[i];
  }
  *sum += a;
}

void lamb_last(ARRAYS, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) w[i] += m[i] + v[i];
}

void lars_first(ARRAYS, int64_t begin, int64_t end) {
  float a = 0;
  for (int64_t i = begin; i < end; ++i) a += w[i] + g[i];
  *sum += a;
}
