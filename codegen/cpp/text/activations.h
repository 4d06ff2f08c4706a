// Functions of epilogues, for a float or a vector of them. Errors are a few units in the last place
// of a float.

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// Integers as wide as a float, as many as there are.
template <class Values>
struct IntegersOf {
  using type = decltype(Values{} < Values{});
};
template <>
struct IntegersOf<float> {
  using type = int32_t;
};

// Whether AVX-512 has an instruction for what takes GCC's vector extensions several.
template <class Values>
constexpr bool is_register = native_floats == 16 && sizeof(Values) == 64;

// x between two bounds; a NaN stays one.
template <class Values>
SC_INLINE Values clamp(Values x, float least, float most) {
  const Values low = Values{} + least, high = Values{} + most;
#if defined(__AVX512F__)
  if constexpr (is_register<Values>)
    return (Values)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)x));
#endif
  x = x > high ? high : x;
  return x < low ? low : x;
}

// value times 2^n, where |n| <= 252. `shifted` is n + 1.5 * 2^23.
template <class Values>
SC_INLINE Values scale_by_power(Values value, Values n, [[maybe_unused]] Values shifted) {
#if defined(__AVX512F__)
  if constexpr (is_register<Values>) return (Values)_mm512_scalef_ps((__m512)value, (__m512)n);
#endif
  // In two factors: neither overflows, and the result may be infinite or subnormal.
  using Integers = typename IntegersOf<Values>::type;
  const Integers exponent = bit_cast<Integers>(shifted) - 0x4b400000, half = exponent >> 1;
  const Values low = bit_cast<Values>((half + 127) << 23);
  return value * low * bit_cast<Values>((exponent - half + 127) << 23);
}

template <class Values>
SC_INLINE Values magnitude(Values x) {
  using Integers = typename IntegersOf<Values>::type;
  return bit_cast<Values>(bit_cast<Integers>(x) & 0x7fffffff);
}

// e^x = 2^n e^r with |r| <= log(2) / 2; the polynomial is that of Cephes' expf.
template <class Values>
SC_INLINE Values exponential(Values x) {
  x = clamp(x, -104.0f, 89.0f);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
  const Values shifted = x * 1.44269504f + 12582912.0f;
  const Values n = shifted - 12582912.0f;
  const Values r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Values p = Values{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return scale_by_power(p, n, shifted);
}

template <class Values>
SC_INLINE Values logistic(Values x) { return 1.0f / (1.0f + exponential(-x)); }

// Near zero a polynomial, Cephes' tanhf; elsewhere 1 - 2 / (e^2x + 1), which does not cancel there.
template <class Values>
SC_INLINE Values hyperbolic_tangent(Values x) {
  const Values z = magnitude(x), s = x * x;
  Values p = Values{} + -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const Values near = p * s * x + x, far = 1.0f - 2.0f / (exponential(2.0f * z) + 1.0f);
  const Values away = x < 0.0f ? -far : far;
  return z < 0.625f ? near : away;
}

// 1 - erf(x), relative error below 1.2e-7: Numerical Recipes, 6.2.
template <class Values>
SC_INLINE Values complementary_error(Values x) {
  const Values z = magnitude(x), t = 1.0f / (1.0f + 0.5f * z);
  Values p = Values{} + 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const Values tail = t * exponential(p - z * z);
  const Values other = 2.0f - tail;
  return x < 0.0f ? other : tail;
}

}  // namespace
