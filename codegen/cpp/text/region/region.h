// Stages one after the other on the threads of one parallel region.

#include <atomic>
#include <sched.h>

namespace {

// Threads that come here wait for the last of them: some microseconds busily, as stages take no longer;
// then others may have the processor.
class Barrier {
  alignas(64) std::atomic<int64_t> arrived{0};
  alignas(64) std::atomic<int64_t> generation{0};
  static constexpr int busy_rounds = 4096;

 public:
  void wait(int64_t threads) {
    if (threads == 1) return;
    const int64_t mine = generation.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived.store(0, std::memory_order_relaxed);
      generation.store(mine + 1, std::memory_order_release);
      return;
    }
    for (int round = 0; generation.load(std::memory_order_acquire) == mine; ++round) {
      if (round >= busy_rounds) {
        sched_yield();
        continue;
      }
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }
};

// Where a thread finds the rows of a source.
struct Sources {
  const SCRegion& region;
  int64_t thread;

  char* operator()(int64_t source) const {
    return source < 0 ? nullptr : region.sources[source] + thread * region.steps[source];
  }
};

inline void run_linear(const SCRegion& region, const SCStage& stage, const Sources& sources,
                       int64_t threads) {
  SCLinearArguments a = stage.arguments;
  a.x = sources(stage.x);
  a.operand0 = sources(stage.operand0);
  a.operand1 = sources(stage.operand1);
  a.y = sources(stage.y);
  a.workspace = region.workspace + sources.thread * region.workspace_step;
  a.m = region.m;
  a.threads = threads;
  a.in_region = 1;
  a.thread = sources.thread;
  stage.linear(&a);
}

// f(columns of a row, added up or compared)
template <class At>
SC_INLINE float row_sum(int64_t columns, At&& at) {
  Values total{};
  for (int64_t c = 0; c < columns; c += native_floats) total += at(c);
  return sum<native_floats>(total);
}
template <class At>
SC_INLINE float row_amax(int64_t columns, At&& at) {
  Values most = at(0);
  for (int64_t c = native_floats; c < columns; c += native_floats) {
    const Values value = at(c);
    // A NaN stays, wherever it stands.
    most = value > most || value != value ? value : most;
  }
  float result = most[0];
  for (int i = 1; i < native_floats; ++i)
    if (most[i] > result || most[i] != most[i]) result = most[i];
  return result;
}
template <class T>
SC_INLINE Values columns_at(const T* row, int64_t c) {
  return load_floats<native_floats>(row + c);
}

}  // namespace
