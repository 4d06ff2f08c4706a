// What this machine can do at most: first, bytes read from memory a second.
// Every number is the best of several runs: a limit is what undisturbed work reaches.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <chrono>

#include <sys/mman.h>

#define SC_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

double seconds_now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Calls `work(thread)` once on each thread; the same thread gets the same number every time.
template <class Work>
void on_threads(int64_t threads, Work work) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) work(thread);
}

// What is computed has to be used, or the compiler leaves it out.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

constexpr int64_t huge_page = 2 << 20;

// Anonymous memory at a multiple of 2 MiB, in huge pages where the system gives them.
class Pages {
 public:
  explicit Pages(int64_t bytes) : size_(bytes + huge_page) {
    base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) return;
    const auto address = reinterpret_cast<uintptr_t>(base_);
    data = reinterpret_cast<char*>((address + huge_page - 1) / huge_page * huge_page);
#ifdef MADV_HUGEPAGE
    madvise(data, bytes, MADV_HUGEPAGE);
#endif
  }
  ~Pages() {
    if (base_ != MAP_FAILED) munmap(base_, size_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  char* data = nullptr;

 private:
  void* base_;
  size_t size_;
};

typedef uint64_t Line __attribute__((vector_size(64)));  // a cache line

// One stream, prefetched a page ahead: the hardware's own prefetch ends at every 4 KiB.
void read_all(const char* from, int64_t bytes, Line* total) {
  Line sums[4] = {};
  for (int64_t at = 0; at < bytes; at += 256) {
    __builtin_prefetch(from + at + 4096);
    __builtin_prefetch(from + at + 4096 + 64);
    __builtin_prefetch(from + at + 4096 + 128);
    __builtin_prefetch(from + at + 4096 + 192);
    for (int i = 0; i < 4; ++i) {
      sums[i] ^= *reinterpret_cast<const Line*>(from + at + 64 * i);
    }
  }
  *total = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

}  // namespace

// Bytes a second that `threads` threads together read from `bytes` of memory, each its own share,
// which it wrote first and so has near; 0 when there is not that much memory.
SC_EXPORT double sc_read_bandwidth(int64_t bytes, int64_t threads, int64_t runs) {
  const int64_t share = bytes / threads / 256 * 256;
  const Pages pages(bytes);
  if (pages.data == nullptr) return 0;
  on_threads(threads, [&](int64_t t) { std::memset(pages.data + t * share, 1, share); });
  double best = 0;
  for (int64_t run = 0; run < runs; ++run) {
    const double start = seconds_now();
    on_threads(threads, [&](int64_t t) {
      Line total;
      read_all(pages.data + t * share, share, &total);
      keep(total);
    });
    const double now = static_cast<double>(share * threads) / (seconds_now() - start);
    if (now > best) best = now;
  }
  return best;
}
