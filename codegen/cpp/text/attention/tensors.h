// Rows of what a call reads and writes.

namespace {

template <class T = Element>
SC_INLINE const T* row_of(const SCRows& rows, int64_t batch, int64_t head, int64_t row) {
  return static_cast<const T*>(rows.data) + batch * rows.batch + head * rows.head + row * rows.row;
}
SC_INLINE Element* row_to_write(const SCRows& rows, int64_t batch, int64_t head, int64_t row) {
  return const_cast<Element*>(row_of(rows, batch, head, row));
}

SC_INLINE int64_t kv_head_of(int64_t head) { return head / groups; }

// visit(row) of a bias or of scales, in the type that they have.
template <class Visit>
SC_INLINE void with_row(const SCRows& rows, int64_t batch, int64_t head, int64_t row, Visit&& visit) {
  if (rows.dtype == 0) return visit(row_of<float>(rows, batch, head, row));
  if (rows.dtype == 1) return visit(row_of<bfloat16>(rows, batch, head, row));
  visit(row_of<float16>(rows, batch, head, row));
}

// What a stored row of keys or values is multiplied by.
SC_INLINE float scale_of(const SCRows& scales, int64_t batch, int64_t head, int64_t row) {
  float scale = 1.0f;
  if constexpr (is_scaled)
    with_row(scales, batch, head, row, [&](const auto* of) SC_INLINED { scale = to_float(*of); });
  return scale;
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
