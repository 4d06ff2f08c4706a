// Vectors of floats: what softmax needs beside sums and products.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int lanes = native_floats;
using Values = Floats<lanes>;
constexpr float infinity = __builtin_inff();
constexpr float log2_of_e = 1.44269504f;

// Whether products take two bfloat16 at a time.
#if defined(__AVX512BF16__)
constexpr bool in_pairs = std::is_same_v<Element, bfloat16> && head_dim % 2 == 0 &&
                          head_dim >= 2 * lanes && value_dim >= 2 * lanes;
#else
constexpr bool in_pairs = false;
#endif

SC_INLINE Values broadcast(float value) { return value - Values{}; }

template <int count>
SC_INLINE Floats<count> load_floats(const int8_t* from) {
#if defined(__AVX512F__)
  return (Values)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(from)));
#elif defined(__AVX2__)
  return (Values)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
  const auto wide = __builtin_convertvector(load<Vector<int8_t, count>>(from), Ints<count>);
  return __builtin_convertvector(wide, Floats<count>);
#endif
}

// The larger ones; of a NaN and b always b.
SC_INLINE Values maximum(Values a, Values b) {
#if defined(__AVX512F__)
  return (Values)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Values)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

template <int count = lanes>
SC_INLINE float largest_of(Floats<count> values) {
  if constexpr (count == 2) {
    return values[0] > values[1] ? values[0] : values[1];
  } else {
    using Half = Floats<count / 2>;
    const char* halves = reinterpret_cast<const char*>(&values);
    const Half a = load<Half>(halves), b = load<Half>(halves + sizeof(Half));
    return largest_of<count / 2>(a > b ? a : b);
  }
}

// Values where the bit of a lane is set, -inf elsewhere.
SC_INLINE Values where(uint32_t bits, Values values) {
  const Values nowhere = broadcast(-infinity);
#if defined(__AVX512F__)
  return (Values)_mm512_mask_mov_ps((__m512)nowhere, static_cast<__mmask16>(bits), (__m512)values);
#else
  const Ints<lanes> bit = (Ints<lanes>{} + 1) << iota<int32_t, lanes>();
  return (static_cast<int32_t>(bits) & bit) != 0 ? values : nowhere;
#endif
}

// 2^x, where x is at most about 100: 0 for -inf, NaN for NaN. Relative error 2e-7, or where the result is
// rounded to bfloat16, 1e-4.
template <bool is_rounded>
SC_INLINE Values power_of_two(Values x) {
#if defined(__AVX512F__)
  // x less its floor; scalef has the floor.
  const Values f = (Values)_mm512_reduce_ps((__m512)x, 1);
  Values p;
  if constexpr (is_rounded) {
    p = broadcast(7.80243571e-2f) * f + 2.26067736e-1f;
    p = p * f + 6.95833132e-1f;
    p = p * f + 9.9992528e-1f;
  } else {
    p = broadcast(1.87757805e-3f) * f + 8.98934371e-3f;
    p = p * f + 5.58263078e-2f;
    p = p * f + 2.40153624e-1f;
    p = p * f + 6.93153072e-1f;
    p = p * f + 9.99999925e-1f;
  }
  return (Values)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
  x = clamp(x, -152.0f, 127.0f);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits. The polynomial is that
  // of Cephes' exp2f.
  const Values shifted = x + 12582912.0f, n = shifted - 12582912.0f, f = x - n;
  Values p = broadcast(1.535336188e-4f) * f + 1.339887440e-3f;
  p = p * f + 9.618437357e-3f;
  p = p * f + 5.550332471e-2f;
  p = p * f + 2.402264791e-1f;
  p = p * f + 6.931472028e-1f;
  p = p * f + 1.0f;
  return scale_by_power(p, n, shifted);
#endif
}

SC_INLINE float power_of_two(float x) { return power_of_two<false>(broadcast(x))[0]; }

// What a score becomes before anything is added to it.
SC_INLINE Values cap_score(Values score, float scale, [[maybe_unused]] float cap) {
  score = score * scale;
  if constexpr (has_softcap) score = cap * hyperbolic_tangent(score / cap);
  return score;
}

// What is subtracted from scores of which this is the largest: -inf only where all of them are.
SC_INLINE Values base_of(Values largest) { return largest == -infinity ? Values{} : largest; }

// Whether any of the vectors seen had a NaN.
struct Nans {
  Ints<lanes> found{};
  SC_INLINE void see(Values values) { found |= values != values; }
  SC_INLINE bool any() const {
    return largest_of((Values)(found & bit_cast<Ints<lanes>>(broadcast(1.0f)))) > 0.0f;
  }
};

// f(lane<count>{}) for a count from 1 to `most`.
template <int most, class Function>
SC_INLINE void with_count(int64_t count, Function&& f) {
  if constexpr (most > 1) {
    if (count < most) return with_count<most - 1>(count, f);
  }
  f(lane<most>{});
}

}  // namespace
