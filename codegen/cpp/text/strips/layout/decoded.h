// Vectors of values of the layout `strips` that are decoded before they are multiplied, and, where
// `rounds_values`, rounded to the dtype of x then.

namespace {

template <class Out>
inline Out element_of(const Strips& w, Code value, int64_t row, int64_t column) {
  OfGroup group;
  group.open_strip(w, row / strip_rows);
  group.open_tile(w, row / strip_rows, column / tile_columns);
  const float exact = ((Floats<strip_rows>)decoded(group, (Register)(Words{} + value), 0))[row % strip_rows];
  return from_float<Out>(rounds_values ? to_float(from_float<Element>(exact)) : exact);
}

// Rounded to the dtype of x, if that is not exact.
SC_INLINE Singles rounded(Singles values) {
  if constexpr (!rounds_values || std::is_same_v<Element, float>) return values;
  if constexpr (std::is_same_v<Element, float16>) return widen_halves(narrow_to_halves(values));
  const Words bits = (Words)values;
  return (Singles)((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

// What one column of a vector of codes stands for; nothing where none was kept.
SC_INLINE Singles exact_floats_of(const Reader& reader, Register codes, int column) {
  const Singles values = decoded(reader.group, codes, column);
  if constexpr (!masked) return values;
  const Words there = code_of_byte(reader.there, column_of_byte(column));
  return (Singles)(there != 0 ? (Words)values : Words{});
}
SC_INLINE Singles floats_of(const Reader& reader, Register codes, int column) {
  return rounded(exact_floats_of(reader, codes, column));
}

// sum + vector times its activations.
SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, Register codes, const float* x) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    sum = (Sums)fused_multiply_add(floats_of(reader, codes, c), activations_of(reader.kept, x, c),
                                   (Singles)sum);
  return sum;
}

SC_INLINE void store_expanded(const Reader& reader, Register codes, float* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c) store(out + c * strip_rows, floats_of(reader, codes, c));
}

// Values have no scales that remain for the end.
SC_INLINE Floats<strip_rows> scale_sums(const Strips&, int64_t, Floats<strip_rows> sums) {
  return sums;
}

}  // namespace
