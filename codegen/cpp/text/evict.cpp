// What measuring needs of the native library.
#include <cstring>
#include <vector>

// Take memory out of the caches, so that what reads it next is as slow as it can be.
SC_EXPORT void sc_evict(const void* memory, int64_t bytes) {
#if defined(__SSE2__)
  const char* at = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_ia32_clflush(at + i);
  __builtin_ia32_mfence();
#else
  // Elsewhere by filling the caches with something else.
  static std::vector<char> other(size_t{256} << 20);
  std::memset(other.data(), static_cast<int>(bytes), other.size());
#endif
}
