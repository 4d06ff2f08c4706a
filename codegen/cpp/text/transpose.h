// Rows of x side by side, so that a value of W meets all of them in a vector; and back.

namespace {

// Of every four lanes of two vectors two of each: `first` and the next one, in turns or one after the other.
template <int first, bool in_turns, int... lanes>
SC_INLINE Values two_of_four(Values a, Values b, std::integer_sequence<int, lanes...>) {
  return shuffle<(lanes / 4 * 4 + first + (in_turns ? lanes % 4 / 2 : lanes % 2) +
                  (in_turns ? lanes % 2 : lanes % 4 / 2) * native_floats)...>(a, b);
}

// Of two vectors the blocks of `step` lanes from `first` on, every second one, in turns.
template <int step, int first, int... lanes>
SC_INLINE Values blocks_of(Values a, Values b, std::integer_sequence<int, lanes...>) {
  return shuffle<(lanes / (2 * step) * 2 * step + first + lanes % step +
                  lanes / step % 2 * native_floats)...>(a, b);
}

// Blocks of `step` x `step` change places with those across the diagonal, then larger ones.
template <int step>
SC_INLINE void exchange_blocks(Values (&rows)[native_floats]) {
  if constexpr (step < native_floats) {
    constexpr auto lanes = std::make_integer_sequence<int, native_floats>{};
#pragma GCC unroll 16
    for (int i = 0; i < native_floats; ++i) {
      if (i & step) continue;
      const Values a = rows[i], b = rows[i | step];
      rows[i] = blocks_of<step, 0>(a, b, lanes);
      rows[i | step] = blocks_of<step, step>(a, b, lanes);
    }
    exchange_blocks<2 * step>(rows);
  }
}

// A square of vectors, turned: rows[i][j] becomes rows[j][i].
SC_INLINE void turn(Values (&rows)[native_floats]) {
  constexpr auto lanes = std::make_integer_sequence<int, native_floats>{};
  // Squares of 4 x 4, in registers of 128 bits: such shuffles are the fastest.
#pragma GCC unroll 4
  for (int i = 0; i < native_floats; i += 4) {
    const Values low[] = {two_of_four<0, true>(rows[i], rows[i + 1], lanes),
                          two_of_four<0, true>(rows[i + 2], rows[i + 3], lanes)};
    const Values high[] = {two_of_four<2, true>(rows[i], rows[i + 1], lanes),
                           two_of_four<2, true>(rows[i + 2], rows[i + 3], lanes)};
    rows[i] = two_of_four<0, false>(low[0], low[1], lanes);
    rows[i + 1] = two_of_four<2, false>(low[0], low[1], lanes);
    rows[i + 2] = two_of_four<0, false>(high[0], high[1], lanes);
    rows[i + 3] = two_of_four<2, false>(high[0], high[1], lanes);
  }
  exchange_blocks<4>(rows);
}

// Columns of x, `lanes` rows of it from m0, as [columns][width] floats; what x has not is zero.
template <int width>
inline void transpose(const SCLinearArguments& a, int64_t k, int64_t m0, int64_t lanes,
                      Range columns, const float* scales, float* out) {
  constexpr int64_t step = native_floats;
  const Element* x = static_cast<const Element*>(a.x) + m0 * k;
  for (int64_t c0 = columns.begin; c0 < columns.end; c0 += step) {
    const int64_t end = c0 + step < columns.end ? c0 + step : columns.end;
    if (!rounds_activations && width % step == 0 && c0 + step <= k && c0 + step <= end) {
      for (int64_t j0 = 0; j0 < width; j0 += step) {
        Values rows[step];
#pragma GCC unroll 16
        for (int64_t j = 0; j < step; ++j)
          rows[j] = j0 + j < lanes ? load_floats<step>(x + (j0 + j) * k + c0) : Values{};
        turn(rows);
#pragma GCC unroll 16
        for (int64_t c = 0; c < step; ++c) store(out + (c0 + c) * width + j0, rows[c]);
      }
      continue;
    }
    const int64_t stop = end < k ? end : k;
    std::memset(out + c0 * width, 0, sizeof(float) * (end - c0) * width);
    for (int64_t j = 0; j < lanes; ++j)
      for (int64_t c = c0; c < stop; ++c)
        out[c * width + j] = round_activation(to_float(x[j * k + c]), scales[j]);
  }
}

struct Unscaled {
  SC_INLINE Values operator()(int64_t, Values sums) const { return sums; }
};

// y[rows] for `lanes` rows of x from m0, of sums [rows][width], scaled for one of these rows at a time;
// behind them a vector may be read.
template <class Scale = Unscaled>
SC_SHARED void finish_turned(const SCLinearArguments& a, int64_t n, Range rows, int64_t m0,
                             int64_t lanes, int64_t width, const float* sums, Scale scale = {}) {
  constexpr int64_t step = native_floats;
  for (int64_t j0 = 0; j0 < lanes; j0 += step) {
    for (int64_t first = rows.begin; first < rows.end; first += step) {
      const Range part = {first, first + step < rows.end ? first + step : rows.end};
      const float* from = sums + (first - rows.begin) * width + j0;
      Values turned[step];
#pragma GCC unroll 16
      for (int64_t r = 0; r < step; ++r)
        turned[r] = first + r < rows.end ? load<Values>(from + r * width) : Values{};
      turn(turned);
      finish_sums(a, n, part, m0 + j0, lanes - j0 < step ? lanes - j0 : step,
                  [&](int64_t j, int64_t) SC_INLINED { return scale(j0 + j, turned[j]); });
    }
  }
}

}  // namespace
