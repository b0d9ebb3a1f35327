// One number of all results of a test, to compare processors by: FNV-1a over their bytes, where every NaN is the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

class Fingerprint {
 public:
  void add(const std::vector<float>& numbers) {
    for (const float x : numbers) {
      uint32_t bits = 0x7fc00000;
      if (x == x) std::memcpy(&bits, &x, 4);
      add(&bits, 4);
    }
  }

  template <class Integer>
  void add(const std::vector<Integer>& numbers) {
    add(numbers.data(), numbers.size() * sizeof(Integer));
  }

  void print() const { std::printf("fingerprint %016llx\n", static_cast<unsigned long long>(hash_)); }

 private:
  void add(const void* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i) hash_ = (hash_ ^ static_cast<const uint8_t*>(bytes)[i]) * 0x100000001b3;
  }

  uint64_t hash_ = 0xcbf29ce484222325;
};
