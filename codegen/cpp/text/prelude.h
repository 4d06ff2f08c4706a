// Vectors, number formats and threads for generated kernels. Portable C++17 and GCC's vector
// extensions, which clang shares; how wide a vector is follows from the compiler's flags.
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#ifdef _OPENMP
#include <omp.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "layouts are little-endian");

#define SC_INLINE inline __attribute__((always_inline))
// For lambdas: the calls that pass one are many, and every one must be inlined.
#define SC_INLINED __attribute__((always_inline))
// For what many kernels of a file share: compiling it once is most of a build's time.
#define SC_SHARED __attribute__((noinline))

namespace {

// What every layout begins with.
inline const SCLayoutHeader& header_of(const void* layout) {
  return *static_cast<const SCLayoutHeader*>(layout);
}

#if defined(__AVX512F__)
constexpr int native_floats = 16;
#elif defined(__AVX__)
constexpr int native_floats = 8;
#else
constexpr int native_floats = 4;
#endif

template <class T, int count>
struct VectorOf {
  typedef T type __attribute__((vector_size(count * sizeof(T))));
};
template <class T, int count>
using Vector = typename VectorOf<T, count>::type;
template <int count>
using Floats = Vector<float, count>;
template <int count>
using Ints = Vector<int32_t, count>;

// A number known at compile time, as an argument: which of several running sums a term goes to.
template <int value>
using lane = std::integral_constant<int, value>;

template <class T>
SC_INLINE T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
SC_INLINE void store(void* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// Fetch what a stream will need soon: the hardware's own prefetch ends at every page.
constexpr int64_t prefetch_bytes = 2048;

SC_INLINE void prefetch(const void* stream) {
  __builtin_prefetch(static_cast<const char*>(stream) + prefetch_bytes);
}

template <class To, class From>
SC_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  return load<To>(&from);
}

template <int count>
SC_INLINE float sum(Floats<count> values) {
  if constexpr (count == 2) {
    return values[0] + values[1];
  } else {
    constexpr int half = count / 2;
    const char* halves = reinterpret_cast<const char*>(&values);
    return sum<half>(load<Floats<half>>(halves) + load<Floats<half>>(halves + sizeof(values) / 2));
  }
}

template <class T, int... lanes>
constexpr Vector<T, sizeof...(lanes)> vector_of(std::integer_sequence<int, lanes...>) {
  return Vector<T, sizeof...(lanes)>{static_cast<T>(lanes)...};
}

// 0, 1, 2, ...: of a loop that fills a vector GCC might keep the loop.
template <class T, int count>
constexpr Vector<T, count> iota() {
  return vector_of<T>(std::make_integer_sequence<int, count>{});
}

// Lanes of two vectors by their numbers; those of the second count on from the first one's.
template <int... lanes, class Values>
SC_INLINE Values shuffle(Values a, Values b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, lanes...);
#else
  return __builtin_shuffle(a, b, Ints<sizeof...(lanes)>{lanes...});
#endif
}

// Four floats again and again. GCC has the shuffle to another size from 12 on.
template <int... lanes>
SC_INLINE Floats<sizeof...(lanes)> repeat(Floats<4> four, std::integer_sequence<int, lanes...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(four, four, (lanes % 4)...);
#else
  return Floats<sizeof...(lanes)>{four[lanes % 4]...};
#endif
}

// x[index[i]] for every i. GCC makes single loads of the loop, hence its gather by name.
template <int count, class Index>
SC_INLINE Floats<count> gather(const float* x, const Index* index) {
#if defined(__AVX2__) && !defined(__clang__)
  const auto places = __builtin_convertvector(load<Vector<Index, count>>(index), Ints<count>);
  if constexpr (count == 8)
    return __builtin_ia32_gathersiv8sf(Floats<8>{}, x, places, bit_cast<Floats<8>>(~Ints<8>{}), 4);
#ifdef __AVX512F__
  if constexpr (count == 16) return __builtin_ia32_gathersiv16sf(Floats<16>{}, x, places, -1, 4);
#endif
#endif
  float values[count];
  for (int i = 0; i < count; ++i) values[i] = x[index[i]];
  return load<Floats<count>>(values);
}

// Whether select() below takes its values from vectors in registers.
template <int span, int count>
constexpr bool selects_in_registers() {
#if defined(__GNUC__) && !defined(__clang__)
  return span <= 4 * count;
#else
  return false;
#endif
}

// x[index[i]] for every i, where 0 <= index[i] < span and all of x[0 .. span) may be read.
template <int span, int count>
SC_INLINE Floats<count> select(const float* x, Ints<count> index) {
#if defined(__GNUC__) && !defined(__clang__)
  if constexpr (span <= count) {
    return __builtin_shuffle(load<Floats<count>>(x), index);
  } else if constexpr (span <= 2 * count) {
    return __builtin_shuffle(load<Floats<count>>(x), load<Floats<count>>(x + count), index);
  } else if constexpr (span <= 4 * count) {
    const Floats<count> low = select<2 * count, count>(x, index);
    const Floats<count> high = select<2 * count, count>(x + 2 * count, index);
    return (index & (2 * count)) != 0 ? high : low;
  }
#endif
  int32_t places[count];
  store(places, index);
  return gather<count>(x, places);
}

SC_INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
};

// The part of `items` that falls to one of `threads` threads.
SC_INLINE Range share(int64_t items, int64_t thread, int64_t threads) {
  return {items * thread / threads, items * (thread + 1) / threads};
}

// Run work(thread, threads) on every thread, in one parallel region; alone without a region.
template <class Work>
inline void parallel(int64_t threads, Work&& work) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(static_cast<int>(threads))
    work(static_cast<int64_t>(omp_get_thread_num()), static_cast<int64_t>(omp_get_num_threads()));
    return;
  }
#endif
  work(int64_t{0}, int64_t{1});
}

// Inside parallel(): wait until every thread has come here.
inline void wait_for_threads(int64_t threads) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp barrier
  }
#endif
  (void)threads;
}

}  // namespace
