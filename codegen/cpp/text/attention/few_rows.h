// Few queries: a block of kept keys meets all the queries of a group of heads, of which each is a row.

namespace {

constexpr int64_t block_keys = 32;
// Of rows: how many share the loads of keys, and how many vectors of sums stay in registers.
constexpr int rows_of_scores = lanes == 16 ? 4 : 2, sums_in_registers = lanes == 16 ? 16 : 8;

// Elements that one instruction multiplies, and columns in such steps; the last two may overlap.
constexpr int64_t few_step = lanes * step_depth;
constexpr int64_t few_key_steps = ceil_div(head_dim, few_step);
constexpr int64_t few_value_steps = ceil_div(value_dim, few_step);
constexpr int64_t sum_columns = few_value_steps * few_step;
SC_INLINE constexpr int64_t first_of_step(int64_t step, int64_t columns) {
  const int64_t first = step * few_step, last = columns - few_step;
  return first < last ? first : last;
}

// Ask for a row that will be read soon, into the second level of caches. Asked for row by row, between
// products: all at once they would wait for each other.
template <int64_t columns>
SC_INLINE void fetch(const Stored* row) {
#pragma GCC unroll 16
  for (int64_t c = 0; c < columns; c += 64 / sizeof(Stored)) __builtin_prefetch(row + c, 0, 2);
}

// Rows of a group: query `row % q_length` of its head `row / q_length`.
struct Group {
  int64_t batch, kv_head;
  SC_INLINE int64_t head_of(const SCAttentionArguments& a, int64_t row) const {
    return kv_head * groups + row / a.q_length;
  }
};

SC_INLINE Terms load_terms(const Element* from) {
  if constexpr (in_pairs)
    return load<Terms>(from);
  else
    return bit_cast<Terms>(load_floats<lanes>(from));
}

// Integers are exact in both types of terms.
SC_INLINE Terms load_terms(const int8_t* from) {
#if defined(__AVX512BF16__)
  const auto odd = 2 * iota<uint16_t, 2 * lanes>() + 1;
  if constexpr (in_pairs)
    return (Terms)_mm512_permutex2var_epi16((__m512i)load_floats<lanes>(from), (__m512i)odd,
                                            (__m512i)load_floats<lanes>(from + lanes));
#endif
  return bit_cast<Terms>(load_floats<lanes>(from));
}

// Sums over four lanes each of four vectors: those of the first four lanes side by side, then others.
SC_INLINE Values sums_of_four(const Values (&of)[4]) {
  constexpr auto all = std::make_integer_sequence<int, lanes>{};
  const Values low = two_of_four<0, true>(of[0], of[1], all) + two_of_four<2, true>(of[0], of[1], all);
  const Values high = two_of_four<0, true>(of[2], of[3], all) + two_of_four<2, true>(of[2], of[3], all);
  return two_of_four<0, false>(low, high, all) + two_of_four<2, false>(low, high, all);
}

// Blocks of `step` lanes of as many vectors as there are such blocks, added up: a block for each vector.
template <int step, int count>
SC_INLINE Values sums_of_blocks(const Values (&of)[count]) {
  if constexpr (count == 1) {
    return of[0];
  } else {
    constexpr auto all = std::make_integer_sequence<int, lanes>{};
    Values pairs[count / 2];
#pragma GCC unroll 2
    for (int i = 0; i < count; i += 2)
      pairs[i / 2] = blocks_of<step, 0>(of[i], of[i + 1], all) + blocks_of<step, step>(of[i], of[i + 1], all);
    return sums_of_blocks<2 * step>(pairs);
  }
}

// Of each query its terms, those of the last step zero where they overlap with the one before.
inline void stage_rows(const SCAttentionArguments& a, const Group& group, int64_t rows,
                       Terms* queries) {
  for (int64_t row = 0; row < rows; ++row) {
    const Element* q = row_of(a.q, group.batch, group.head_of(a, row), row % a.q_length);
    Element whole[few_key_steps * few_step] = {};
    constexpr int64_t last = few_key_steps - 1, behind = head_dim - last * few_step;
    std::memcpy(whole, q, last * few_step * sizeof(Element));
    std::memcpy(whole + few_key_steps * few_step - behind, q + last * few_step,
                behind * sizeof(Element));
    for (int64_t s = 0; s < few_key_steps; ++s)
      queries[row * few_key_steps + s] = load_terms(whole + s * few_step);
  }
}

// scores[row][i] = k[i] . q[row] for a vector of keys and some rows; `values` are needed next, if any.
template <int rows>
SC_INLINE void score_keys(const Stored* const* keys, const Stored* const* values,
                          const Terms* queries, float* scores) {
  Values parts[rows][lanes / 4];
#pragma GCC unroll 4
  for (int four = 0; four < lanes / 4; ++four) {
    for (int i = 0; values && i < 4; ++i) fetch<value_dim>(values[4 * four + i]);
    Values sums[rows][4] = {};
#pragma GCC unroll 1
    for (int64_t s = 0; s < few_key_steps; ++s) {
      Terms terms[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        terms[i] = load_terms(keys[4 * four + i] + first_of_step(s, head_dim));
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const Terms query = queries[r * few_key_steps + s];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[r][i] = multiply_add(query, terms[i], sums[r][i]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) parts[r][four] = sums_of_four(sums[r]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) store(scores + r * block_keys, sums_of_blocks<4>(parts[r]));
}

// sums[row][column] += weights[row][i] * v[i][column] for some rows, and some steps of columns; of the keys
// that are likely to be next `next` is the first, if any.
template <int rows, int steps>
SC_INLINE void sum_few(const Stored* const* values, int64_t count, const Stored* next,
                       int64_t next_step, int64_t first_step, const float* weights, float* sums) {
  constexpr int vectors = steps * step_depth;
  Values total[rows][vectors];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) total[r][v] = load<Values>(sums + r * sum_columns + v * lanes);
  for (int64_t i = 0; i < count; i += step_depth) {
    for (int64_t j = i; next && j < i + step_depth; ++j) fetch<head_dim>(next + j * next_step);
    Terms terms[vectors];
#pragma GCC unroll 16
    for (int s = 0; s < steps; ++s) {
      const int64_t column = first_of_step(first_step + s, value_dim);
#if defined(__AVX512BF16__)
      if constexpr (in_pairs) {
        // Words of two rows in turns, 128 bits at a time: half of them, then the others.
        const auto a = (__m512i)load_terms(values[i] + column);
        const auto b = (__m512i)load_terms(values[i + 1] + column);
        terms[2 * s] = (Terms)_mm512_unpacklo_epi16(a, b);
        terms[2 * s + 1] = (Terms)_mm512_unpackhi_epi16(a, b);
        continue;
      }
#endif
      terms[s] = load_terms(values[i] + column);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const Terms weight = load<Term>(weights + r * block_keys + i / step_depth) - Terms{};
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) total[r][v] = multiply_add(weight, terms[v], total[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) store(sums + r * sum_columns + v * lanes, total[r][v]);
}

}  // namespace
