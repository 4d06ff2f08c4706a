// A square of vectors, turned by shuffles.

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

}  // namespace
