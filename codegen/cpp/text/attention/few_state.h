// What a thread keeps of the group of rows that it works at, and what becomes of it.

namespace {

// Largest score, total weight and weighted values of every row, of the keys so far.
struct State {
  int64_t* group;    // which one it is of, or -1
  float* largest;    // [rows]
  float* total;      // [rows]
  float* sums;       // [rows][sum_columns]

  static int64_t bytes(int64_t rows) {
    return 64 + ceil_div(rows * (2 + sum_columns) * sizeof(float), 64) * 64;
  }
  State(char* memory, int64_t rows) : group(reinterpret_cast<int64_t*>(memory)) {
    sums = reinterpret_cast<float*>(memory + 64);
    largest = sums + rows * sum_columns;
    total = largest + rows;
  }
  void clear(int64_t of, int64_t rows) const {
    *group = of;
    for (int64_t r = 0; r < rows; ++r) largest[r] = -infinity;
    std::memset(total, 0, rows * sizeof(float));
    std::memset(sums, 0, rows * sum_columns * sizeof(float));
  }
};

// Let a row forget all that was added, in part, since a larger score has come.
SC_INLINE void raise(const State& state, int64_t row, float largest) {
  const float base = largest == -infinity ? 0.0f : largest;
  const float kept = power_of_two((state.largest[row] - base) * log2_of_e);
  state.largest[row] = largest;
  state.total[row] *= kept;
  float* sums = state.sums + row * sum_columns;
#pragma GCC unroll 16
  for (int64_t c = 0; c < sum_columns; c += lanes) store(sums + c, load<Values>(sums + c) * kept);
}

// Add to a state what another one has of other keys.
inline void merge(const State& into, const State& other, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    const bool is_larger = other.largest[row] > into.largest[row];
    const float largest = is_larger ? other.largest[row] : into.largest[row];
    raise(into, row, largest);
    raise(other, row, largest);
    into.total[row] += other.total[row];
    for (int64_t c = row * sum_columns; c < (row + 1) * sum_columns; ++c)
      into.sums[c] += other.sums[c];
  }
}

// out = sums / total for the rows of a group.
SC_SHARED void finish_group(const SCAttentionArguments& a, const Group& group, int64_t rows,
                            const State& state) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = group.head_of(a, row), query = row % a.q_length;
    const float total = state.total[row], share = total == 0.0f ? 0.0f : 1.0f / total;
    Element* out = row_to_write(a.out, group.batch, head, query);
    Nans nans;
    for (int64_t s = 0; s < few_value_steps; ++s) {
      const float* sums = state.sums + row * sum_columns + s * few_step;
      Element* to = out + first_of_step(s, value_dim);
      const Values first = load<Values>(sums) * share;
      nans.see(first);
      if constexpr (in_pairs) {
        const Values second = load<Values>(sums + lanes) * share;
        nans.see(second);
        // Back from the order in which registers were unpacked.
        store_floats<lanes>(to, shuffle<0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23>(
                                    first, second));
        store_floats<lanes>(to + lanes, shuffle<8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28,
                                                29, 30, 31>(first, second));
      } else {
        store_floats<lanes>(to, first);
      }
    }
    if (nans.any()) attend_carefully(a, group.batch, head, query);
  }
}

}  // namespace
