// Few rows of x: a range of strips, some at once, times all of them.

namespace {

// y of a strip for rows [m0, m0 + lanes) of x, of sums [lanes][strip_rows].
SC_SHARED void finish_strip(const SCLinearArguments& a, const Strips& w, int64_t strip, int64_t m0,
                            int64_t lanes, const float* sums) {
  const int64_t first = strip * strip_rows, last = first + strip_rows;
  finish_sums(a, w.n, {first, last < w.n ? last : w.n}, m0, lanes,
              [&](int64_t j, int64_t) SC_INLINED { return load<Values>(sums + j * strip_rows); });
}

template <int rows, int strips>
inline void decode_groups(const SCLinearArguments& a, const Strips& w, const FewRows& x, Range part,
                          int64_t m0, int64_t lanes) {
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
inline void decode_strips(const SCLinearArguments& a, const Strips& w, const FewRows& x,
                          Range part) {
  constexpr int most = sums_in_registers / (rows * planes);
  constexpr int strips = most < 1 ? 1 : most < decode_streams ? most : decode_streams;
  decode_groups<rows, strips>(a, w, x, part, 0, a.m);
}

inline int64_t decode_workspace(const Strips& w) { return FewRows::bytes(decode_rows, w.k); }

}  // namespace

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const int64_t rows = a.m <= 2 ? a.m : a.m <= 4 ? 4 : 8;
  FewRows x(rows, w.k, a.workspace);
  for (int64_t i = 0; i < rows; ++i)
    x.fill(i, i < a.m ? static_cast<const Element*>(a.x) + i * w.k : nullptr, w.k);
  parallel(useful_threads(a, header_of(a.weight).slots * rows), [&](int64_t thread, int64_t of) {
    const Range part = share(w.strips, thread, of);
    if (rows == 1) decode_strips<1>(a, w, x, part);
    if (rows == 2) decode_strips<2>(a, w, x, part);
    if (rows == 4) decode_strips<4>(a, w, x, part);
    if (rows == 8) decode_strips<8>(a, w, x, part);
  });
}
