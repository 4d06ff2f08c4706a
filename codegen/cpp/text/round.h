// Rounding x to 8 bits, where the spec says so: every row of it times its own scale. Before it come
// `Element` and `rounds_activations`.

namespace {

// max |x| / 127 of a row; 1 where x is not rounded, or where that is too small for a float. A NaN
// stays one.
SC_INLINE float activation_scale(const Element* x, int64_t k) {
  if constexpr (!rounds_activations) return 1.0f;
  const float scale = largest_magnitude(x, k) / 127.0f;
  return scale < 0x1p-126f ? 1.0f : scale;
}

// The multiple of the scale that is nearest. 1.5 * 2^23 leaves no bits behind the point, so that
// adding it rounds to nearest, ties to even.
SC_INLINE float round_activation(float value, float scale) {
  if constexpr (!rounds_activations) return value;
  return ((value / scale + 0x1.8p23f) - 0x1.8p23f) * scale;
}

}  // namespace
