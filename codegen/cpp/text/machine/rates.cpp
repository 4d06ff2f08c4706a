// What this machine can do at most, continued: multiply-adds a second.
#include <utility>

#if defined(__AVX2__) || defined(__AMX_TILE__)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__AMX_TILE__)
#define SC_AMX 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct SCRate {
  double per_second;        // operations, a multiply-add counted as two
  const char* instruction;  // what did them
};

namespace {

// A kernel is `void run(int64_t steps)` and `operations` a step.

#if defined(__AVX512F__)
constexpr int native_floats = 16;
constexpr const char* float32_instruction = "avx512 fma";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int native_floats = 8;
constexpr const char* float32_instruction = "avx2 fma";
#else
constexpr int native_floats = 4;
constexpr const char* float32_instruction = "loops";
#endif

// Chains of dependent multiply-adds that are in flight at once: latency times units, and more.
constexpr int chains = 12;

// Calls `next` on each of the sums, without a loop: the sums have to stay in registers.
template <class Sum, class Next, size_t... i>
inline void each(Sum* sums, Next next, std::index_sequence<i...>) {
  ((sums[i] = next(sums[i])), ...);
}

template <int chains, class Sum, class Next, class Add>
void run_chains(int64_t steps, Sum first, Next next, Add add) {
  Sum sums[chains];
  for (Sum& sum : sums) sum = first = add(first, first);
  for (int64_t step = 0; step < steps; ++step) {
    each(sums, next, std::make_index_sequence<chains>());
  }
  Sum total = sums[0];
  for (int i = 1; i < chains; ++i) total = add(total, sums[i]);
  keep(total);
}

typedef float Floats __attribute__((vector_size(native_floats * 4)));

struct Float32 {
  static constexpr double operations = chains * native_floats * 2;
  static void run(int64_t steps) {
    const Floats factor = Floats{} + 0.999f, term = Floats{} + 0.001f;
    run_chains<chains>(
        steps, term, [=](Floats sum) { return sum * factor + term; },
        [](Floats a, Floats b) { return a + b; });
  }
};

#if defined(__AVX512BF16__)
constexpr const char* bfloat16_instruction = "vdpbf16ps";

struct BFloat16 {
  static constexpr double operations = chains * 16 * 2 * 2;
  static void run(int64_t steps) {
    const auto a = (__m512bh)_mm512_set1_epi32(0x3c003c00);
    run_chains<chains>(
        steps, _mm512_set1_ps(1.0f), [=](__m512 sum) { return _mm512_dpbf16_ps(sum, a, a); },
        [](__m512 b, __m512 c) { return _mm512_add_ps(b, c); });
  }
};
#else
// Widened they are multiplied as fast as floats are.
constexpr const char* bfloat16_instruction = float32_instruction;
using BFloat16 = Float32;
#endif

#if defined(__AVX512VNNI__)
constexpr const char* int8_instruction = "vpdpbusd";

struct Int8 {
  static constexpr double operations = chains * 64 * 2;
  static void run(int64_t steps) {
    const __m512i a = _mm512_set1_epi8(1);
    run_chains<chains>(
        steps, _mm512_set1_epi32(1), [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, a, a); },
        [](__m512i b, __m512i c) { return _mm512_add_epi32(b, c); });
  }
};
#elif defined(__AVX2__)
// Widened to 16 bits.
constexpr const char* int8_instruction = "avx2 vpmaddwd";

struct Int8 {
  // Each chain wants a second register.
  static constexpr int chains = 8;
  static constexpr double operations = chains * 16 * 2;
  static void run(int64_t steps) {
    const __m256i a = _mm256_set1_epi16(1);
    run_chains<chains>(
        steps, _mm256_set1_epi32(1),
        [=](__m256i sum) { return _mm256_add_epi32(sum, _mm256_madd_epi16(sum, a)); },
        [](__m256i b, __m256i c) { return _mm256_add_epi32(b, c); });
  }
};
#else
constexpr const char* int8_instruction = "loops";

struct Int8 {
  static constexpr int count = 4096;
  static constexpr double operations = count * 2;
  static void run(int64_t steps) {
    alignas(64) uint8_t a[count];
    alignas(64) int8_t b[count];
    std::memset(a, 1, sizeof a);
    std::memset(b, 1, sizeof b);
    int32_t total = 0;
    for (int64_t step = 0; step < steps; ++step) {
      keep(a);
      keep(b);
      int32_t sum = 0;
      for (int i = 0; i < count; ++i) sum += static_cast<int>(a[i]) * b[i];
      total ^= sum;
    }
    keep(total);
  }
};
#endif

#ifdef SC_AMX
// Linux gives a process the tile registers when it asks.
bool tiles_allowed() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  static const bool allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return allowed;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Four tiles of sums, each step with the loads of two tiles of either factor, from the L1 cache.
template <bool is_int8>
struct Tiles {
  static constexpr double operations = 4 * 16 * 16 * (is_int8 ? 64 : 32) * 2;
  static void run(int64_t steps) {
    constexpr int places = 4;
    alignas(64) char factors[places][4][1024] = {};
    TileConfig config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = 16;
    }
    // GCC 12 does not know that the instruction reads all 64 bytes.
    asm volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; ++step) {
      const auto& place = factors[step % places];
      _tile_loadd(4, place[0], 64);
      _tile_loadd(5, place[1], 64);
      _tile_loadd(6, place[2], 64);
      _tile_loadd(7, place[3], 64);
      multiply();
    }
    _tile_release();
  }
  static void multiply() {
    if constexpr (is_int8) {
#ifdef __AMX_INT8__
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
#endif
    } else {
#ifdef __AMX_BF16__
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
#endif
    }
  }
};
#endif

template <class Kernel>
double run_seconds(int64_t threads, int64_t steps) {
  const double start = seconds_now();
  on_threads(threads, [=](int64_t) { Kernel::run(steps); });
  return seconds_now() - start;
}

template <class Kernel>
SCRate rate_of(const char* instruction, int64_t threads, int64_t runs, double seconds) {
  int64_t steps = 256;
  while (run_seconds<Kernel>(threads, steps) < seconds) steps *= 2;
  double best = run_seconds<Kernel>(threads, steps);
  for (int64_t run = 1; run < runs; ++run) {
    const double now = run_seconds<Kernel>(threads, steps);
    if (now < best) best = now;
  }
  return {Kernel::operations * static_cast<double>(steps * threads) / best, instruction};
}

}  // namespace

// Each run of the following takes about `seconds`.

SC_EXPORT void sc_float32_rate(int64_t threads, int64_t runs, double seconds, SCRate* rate) {
  *rate = rate_of<Float32>(float32_instruction, threads, runs, seconds);
}

SC_EXPORT void sc_bfloat16_rate(int64_t threads, int64_t runs, double seconds, SCRate* rate) {
#if defined(SC_AMX) && defined(__AMX_BF16__)
  if (tiles_allowed()) {
    *rate = rate_of<Tiles<false>>("amx tdpbf16ps", threads, runs, seconds);
    return;
  }
#endif
  *rate = rate_of<BFloat16>(bfloat16_instruction, threads, runs, seconds);
}

SC_EXPORT void sc_int8_rate(int64_t threads, int64_t runs, double seconds, SCRate* rate) {
#if defined(SC_AMX) && defined(__AMX_INT8__)
  if (tiles_allowed()) {
    *rate = rate_of<Tiles<true>>("amx tdpbusd", threads, runs, seconds);
    return;
  }
#endif
  *rate = rate_of<Int8>(int8_instruction, threads, runs, seconds);
}
