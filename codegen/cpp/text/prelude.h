// Vectors, number formats and threads for generated kernels. Portable C++17 and GCC's vector
// extensions, which clang shares; how wide a vector is follows from the compiler's flags.
#include <cstdint>
#include <cstring>
#include <type_traits>
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

// 0, 1, 2, ...
template <class T, int count>
SC_INLINE Vector<T, count> iota() {
  Vector<T, count> result;
  for (int i = 0; i < count; ++i) result[i] = static_cast<T>(i);
  return result;
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

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

SC_INLINE float to_float(float value) { return value; }

SC_INLINE float to_float(bfloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Shifting exponent and mantissa into place is off by 2^112 for every finite number, subnormal
// or not; infinities and NaNs get the largest exponent.
SC_INLINE float to_float(float16 value) {
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  return bit_cast<float>(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite));
}

template <class T>
T from_float(float value);

template <>
SC_INLINE float from_float<float>(float value) {
  return value;
}

// Round to nearest, ties to even; a NaN keeps its upper bits and stays a NaN.
template <>
SC_INLINE bfloat16 from_float<bfloat16>(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t nan = bits >> 16 | ((bits & 0x7f0000) == 0);
  return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded)};
}

template <>
SC_INLINE float16 from_float<float16>(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  // Normal: rebias the exponent by 112, drop 13 bits, ties to even; may carry to infinity.
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Subnormal: adding 0.5 leaves the rounded result in the lowest bits.
  const uint32_t tiny = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t nan = 0x7c00 | (magnitude >> 13 & 0x3ff) | ((magnitude & 0x7fe000) == 0);
  uint32_t result = magnitude < 0x38800000 ? tiny : normal;
  result = magnitude >= 0x47800000 ? 0x7c00 : result;
  result = magnitude > 0x7f800000 ? nan : result;
  return {static_cast<uint16_t>(result | (bits >> 16 & 0x8000))};
}

template <int count>
SC_INLINE Floats<count> load_floats(const float* from) {
  return load<Floats<count>>(from);
}

template <int count>
SC_INLINE Floats<count> load_floats(const bfloat16* from) {
  const auto bits = load<Vector<uint16_t, count>>(from);
  return (Floats<count>)(__builtin_convertvector(bits, Vector<uint32_t, count>) << 16);
}

template <int count>
SC_INLINE Floats<count> load_floats(const float16* from) {
  using Bits = Vector<uint32_t, count>;
  const Bits bits = __builtin_convertvector(load<Vector<uint16_t, count>>(from), Bits);
  const Bits magnitude = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
  const Bits finite = (Bits)((Floats<count>)magnitude * 0x1p112f);
  return (Floats<count>)(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite));
}

// max |x|; NaNs count as larger than infinity, and the maximum of integers becomes vectors.
template <class T>
SC_INLINE float largest_magnitude(const T* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bit_cast<uint32_t>(to_float(x[i])) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return bit_cast<float>(largest);
}

SC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
