// Products of tiles, in registers.

namespace {

#if defined(__AVX2__)
constexpr int rows_at_once = 6, vectors_at_once = lanes == 16 ? 4 : 2;
#else
constexpr int rows_at_once = 4, vectors_at_once = 2;
#endif
// What one step multiplies: a float, or the bits of two bfloat16.
using Term = std::conditional_t<in_pairs, uint32_t, float>;
using Terms = Vector<Term, lanes>;
using Pairs = Vector<uint32_t, lanes>;
constexpr int64_t step_depth = in_pairs ? 2 : 1;
static_assert(sizeof(Term) == sizeof(float));

SC_INLINE Values multiply_add(Terms a, Terms b, Values sum) {
#if defined(__AVX512BF16__)
  if constexpr (in_pairs)
    return (Values)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  else
#endif
    return sum + (Values)a * (Values)b;
}

// Terms of a matrix; where the next row and the next step are, in bytes.
struct Across {
  const char* data;
  int64_t row, step;
};
// Vectors of terms, one after the other; where those of the next step are, in bytes.
struct Along {
  const char* data;
  int64_t step;
};

// sums[r][v] += a[r][t] * b[t][v] over all steps t.
template <int rows, int vectors>
SC_INLINE void accumulate(Across a, Along b, int64_t steps, Values (&sums)[rows][vectors]) {
#pragma GCC unroll 2
  for (int64_t t = 0; t < steps; ++t, a.data += a.step, b.data += b.step) {
    Terms terms[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) terms[v] = load<Terms>(b.data + v * sizeof(Terms));
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      const Terms one = load<Term>(a.data + r * a.row) - Terms{};
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = multiply_add(one, terms[v], sums[r][v]);
    }
  }
}

// f(lane<rows>{}, first row) for 16 rows, some at a time.
template <class Function>
SC_INLINE void sixteen_rows(Function&& f) {
  constexpr int whole = 16 / rows_at_once * rows_at_once;
  for (int row = 0; row < whole; row += rows_at_once) f(lane<rows_at_once>{}, row);
  if constexpr (whole < 16) f(lane<16 - whole>{}, whole);
}

}  // namespace
