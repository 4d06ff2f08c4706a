// Few rows of x: a range of strips, some at once, times all of them.

namespace {

// Up to `integer_rows` rows of x are multiplied as integers; one of these two may not be defined.
struct IntegerRows;
struct FloatRows;
template <int rows>
using FewRows = std::conditional_t<rows <= integer_rows, IntegerRows, FloatRows>;

// y of a strip for rows [m0, m0 + lanes) of x, of sums [lanes][strip_rows].
SC_SHARED void finish_strip(const SCLinearArguments& a, const Strips& w, int64_t strip, int64_t m0,
                            int64_t lanes, const float* sums) {
  const int64_t first = strip * strip_rows, last = first + strip_rows;
  finish_sums(a, w.n, {first, last < w.n ? last : w.n}, m0, lanes,
              [&](int64_t j, int64_t) SC_INLINED { return load<Values>(sums + j * strip_rows); });
}

template <int rows, int strips>
inline void decode_groups(const SCLinearArguments& a, const Strips& w, const FewRows<rows>& x,
                          Range part, int64_t m0, int64_t lanes) {
  int64_t strip = part.begin;
  for (; strip + strips <= part.end; strip += strips) {
    float sums[strips * rows * strip_rows];
    decode_group<rows, strips>(w, strip, part.end, x, sums);
    for (int s = 0; s < strips; ++s)
      finish_strip(a, w, strip + s, m0, lanes, sums + s * rows * strip_rows);
  }
  if constexpr (strips > 1) decode_groups<rows, 1>(a, w, x, {strip, part.end}, m0, lanes);
}

template <int rows>
inline void decode_strips(const SCLinearArguments& a, const Strips& w, const FewRows<rows>& x,
                          Range part) {
  constexpr int most = sums_in_registers / (rows * FewRows<rows>::sums_of_row);
  constexpr int strips = most < 1 ? 1 : most < decode_streams ? most : decode_streams;
  decode_groups<rows, strips>(a, w, x, part, 0, a.m);
}

// Call run(rows) with the number of them that there is code for.
template <class Run>
SC_INLINE void with_rows(int64_t m, Run&& run) {
  if (m <= 1) return run(lane<1>());
  if (m <= 2) return run(lane<2>());
  if (m <= 4) return run(lane<4>());
  run(lane<8>());
}

inline int64_t decode_workspace(const Strips& w, int64_t m) {
  int64_t bytes = 0;
  with_rows(m, [&](auto rows) { bytes = FewRows<rows>::bytes(rows, w.k); });
  return bytes;
}

}  // namespace

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  with_rows(a.m, [&](auto rows) {
    FewRows<rows> x(rows, w.k, a.workspace);
    for (int64_t i = 0; i < rows; ++i)
      x.fill(i, i < a.m ? static_cast<const Element*>(a.x) + i * w.k : nullptr, w.k);
    parallel_stage(a, header_of(a.weight).slots * rows, [&](int64_t thread, int64_t of) {
      decode_strips<rows>(a, w, x, share(w.strips, thread, of));
    });
  });
}
