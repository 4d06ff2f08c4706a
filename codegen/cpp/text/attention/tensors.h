// Rows of what a call reads and writes.

namespace {

SC_INLINE const Element* row_of(const SCRows& rows, int64_t batch, int64_t head, int64_t row) {
  return static_cast<const Element*>(rows.data) + batch * rows.batch + head * rows.head +
         row * rows.row;
}
SC_INLINE Element* row_to_write(const SCRows& rows, int64_t batch, int64_t head, int64_t row) {
  return const_cast<Element*>(row_of(rows, batch, head, row));
}

SC_INLINE int64_t kv_head_of(int64_t head) { return head / groups; }

// visit(row) with the bias of a query for all keys, in the type that it has.
template <class Visit>
SC_INLINE void with_bias(const SCAttentionArguments& a, int64_t batch, int64_t head, int64_t query,
                         Visit&& visit) {
  const int64_t at = batch * a.bias.batch + head * a.bias.head + query * a.bias.row;
  if (a.bias_dtype == 0) return visit(static_cast<const float*>(a.bias.data) + at);
  if (a.bias_dtype == 1) return visit(static_cast<const bfloat16*>(a.bias.data) + at);
  visit(static_cast<const float16*>(a.bias.data) + at);
}

// As many floats as there are, up to a vector of them; zeros for the others.
template <class T>
SC_INLINE Values load_some(const T* from, int64_t count) {
  if (count >= lanes) return load_floats<lanes>(from);
  float some[lanes] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = to_float(from[i]);
  return load<Values>(some);
}

// visit(first) for vectors of `step` numbers that cover `count`; the last two may overlap.
template <int64_t count, int64_t step, class Visit>
SC_INLINE void cover(Visit&& visit) {
  static_assert(count >= step);
#pragma GCC unroll 16
  for (int64_t first = 0; first + step <= count; first += step) visit(first);
  if constexpr (count % step) visit(count - step);
}

}  // namespace
