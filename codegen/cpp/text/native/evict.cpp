// What measuring needs of the native library.
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>

namespace {

// Leaf 7 of cpuid; not in every compiler's __builtin_cpu_supports.
bool has_clflushopt() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 23 & 1);
}

// Lines leave the caches beside each other, many times as fast as one after the other.
__attribute__((target("clflushopt"))) void flush_together(const char* memory, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    __builtin_ia32_clflushopt(const_cast<char*>(memory) + i);
  }
}

}  // namespace
#endif

// Take memory out of the caches, so that what reads it next is as slow as it can be.
SC_EXPORT void sc_evict(const void* memory, int64_t bytes) {
#if defined(__x86_64__)
  static const bool together = has_clflushopt();
  const char* at = static_cast<const char*>(memory);
  if (together) {
    flush_together(at, bytes);
  } else {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_ia32_clflush(at + i);
  }
  __builtin_ia32_mfence();
#else
  // Elsewhere by filling the caches with something else.
  static std::vector<char> other(size_t{256} << 20);
  std::memset(other.data(), static_cast<int>(bytes), other.size());
#endif
}
