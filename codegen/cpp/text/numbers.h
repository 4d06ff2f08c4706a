// Number formats: floats from and to what tensors hold, one by one and as vectors.

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

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

// Bits of the nearest bfloat16 for bits of a float, or of a vector of them: ties to even; a NaN keeps
// its upper bits and stays a NaN.
template <class Bits>
SC_INLINE Bits bfloat16_bits(Bits bits) {
  const Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Bits nan = bits >> 16 | ((Bits)((bits & 0x7f0000) == 0) & 1);
  return (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
}

// The same for float16; `Float` is what the bits are of.
template <class Float, class Bits>
SC_INLINE Bits float16_bits(Bits bits) {
  const Bits magnitude = bits & 0x7fffffff, infinity = Bits{} + 0x7c00;
  // Normal: rebias the exponent by 112, drop 13 bits, ties to even; may carry to infinity.
  const Bits normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Subnormal: adding 0.5 leaves the rounded result in the lowest bits.
  const Bits tiny = bit_cast<Bits>(bit_cast<Float>(magnitude) + 0.5f) - 0x3f000000;
  const Bits nan = infinity | (magnitude >> 13 & 0x3ff) | ((Bits)((magnitude & 0x7fe000) == 0) & 1);
  Bits result = magnitude < 0x38800000 ? tiny : normal;
  result = magnitude >= 0x47800000 ? infinity : result;
  result = magnitude > 0x7f800000 ? nan : result;
  return result | (bits >> 16 & 0x8000);
}

template <>
SC_INLINE bfloat16 from_float<bfloat16>(float value) {
  return {static_cast<uint16_t>(bfloat16_bits(bit_cast<uint32_t>(value)))};
}

template <>
SC_INLINE float16 from_float<float16>(float value) {
  return {static_cast<uint16_t>(float16_bits<float>(bit_cast<uint32_t>(value)))};
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
#if defined(__F16C__)
  if constexpr (count == 4) {
    const Vector<int64_t, 2> four = {load<int64_t>(from), 0};
    return __builtin_ia32_vcvtph2ps((Vector<int16_t, 8>)four);
  }
  if constexpr (count == 8) return __builtin_ia32_vcvtph2ps256(load<Vector<int16_t, 8>>(from));
#endif
  using Bits = Vector<uint32_t, count>;
  const Bits bits = __builtin_convertvector(load<Vector<uint16_t, count>>(from), Bits);
  const Bits magnitude = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
  const Bits finite = (Bits)((Floats<count>)magnitude * 0x1p112f);
  return (Floats<count>)(sign | (magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite));
}

template <int count>
SC_INLINE void store_floats(float* to, Floats<count> values) {
  store(to, values);
}

template <int count>
SC_INLINE void store_floats(bfloat16* to, Floats<count> values) {
#if defined(__AVX512BF16__)
  if constexpr (count == 16) return store(to, _mm512_cvtneps_pbh((__m512)values));
#endif
  const auto bits = bfloat16_bits((Vector<uint32_t, count>)values);
  store(to, __builtin_convertvector(bits, Vector<uint16_t, count>));
}

template <int count>
SC_INLINE void store_floats(float16* to, Floats<count> values) {
  const auto bits = float16_bits<Floats<count>>((Vector<uint32_t, count>)values);
  store(to, __builtin_convertvector(bits, Vector<uint16_t, count>));
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

}  // namespace
