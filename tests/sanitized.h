// What programs under the sanitizers give to kernels: memory that is exactly as long as it may be, so that
// every access beyond is seen.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

namespace driver {

// Memory with all bits set: read as floats before it is written, it is NaN.
struct Buffer {
  void* memory = nullptr;

  explicit Buffer(int64_t bytes) {
    if (posix_memalign(&memory, 64, bytes)) std::abort();
    if (bytes) std::memset(memory, 0xff, bytes);
  }
  explicit Buffer(const std::vector<char>& content) : Buffer(static_cast<int64_t>(content.size())) {
    if (!content.empty()) std::memcpy(memory, content.data(), content.size());
  }
  ~Buffer() { std::free(memory); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

inline std::vector<char> bytes_of(const char* name) {
  std::ifstream file(name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace driver
