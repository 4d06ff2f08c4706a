// Elementwise functions of epilogues, without branches or calls, so that loops over them become
// vectors. Errors are a few units in the last place of a float.

namespace {

// e^x = 2^n e^r with |r| <= log(2) / 2; the polynomial is that of Cephes' expf.
SC_INLINE float exponential(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: neither overflows, and the result may be infinite or subnormal.
  const int32_t exponent = bit_cast<int32_t>(shifted) - 0x4b400000, half = exponent >> 1;
  const float low = bit_cast<float>((half + 127) << 23);
  const float high = bit_cast<float>((exponent - half + 127) << 23);
  return p * low * high;
}

SC_INLINE float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

// Near zero a polynomial, Cephes' tanhf; elsewhere 1 - 2 / (e^2x + 1), which does not cancel there.
SC_INLINE float hyperbolic_tangent(float x) {
  const float z = x < 0.0f ? -x : x, s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float near = p * s * x + x, far = 1.0f - 2.0f / (exponential(2.0f * z) + 1.0f);
  return z < 0.625f ? near : x < 0.0f ? -far : far;
}

// 1 - erf(x), relative error below 1.2e-7: Numerical Recipes, 6.2.
SC_INLINE float complementary_error(float x) {
  const float z = x < 0.0f ? -x : x, t = 1.0f / (1.0f + 0.5f * z);
  float p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const float tail = t * exponential(p - z * z);
  return x < 0.0f ? 2.0f - tail : tail;
}

}  // namespace
