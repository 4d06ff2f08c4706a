// Memory that kernels work in, a thread's own.
#include <cstdlib>

namespace {

// It grows to what calls need, up to a limit.
struct Workspace {
  static constexpr int64_t kept_bytes = int64_t{64} << 20;
  void* memory = nullptr;
  int64_t bytes = 0;

  void* reserve(int64_t needed) {
    if (needed > bytes) {
      release();
      const int64_t rounded = (needed + 4095) / 4096 * 4096;
      memory = std::aligned_alloc(4096, rounded);
      TORCH_CHECK(memory, "sparsecompile: no memory for a workspace of ", rounded, " bytes");
      bytes = rounded;
    }
    return memory;
  }
  void trim() {
    if (bytes > kept_bytes) release();
  }
  void release() {
    std::free(memory);
    memory = nullptr;
    bytes = 0;
  }
  ~Workspace() { release(); }
};
thread_local Workspace workspace;

}  // namespace
