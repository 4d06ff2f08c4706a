// A block of kept keys, for all rows of a group.

namespace {

// Kept keys that are next to be multiplied.
struct Block {
  int64_t count = 0;
  alignas(64) int64_t keys[block_keys];
  alignas(64) float k_scales[block_keys], v_scales[block_keys];  // where rows have scales

  // With those that are missing in the last vector, for which the last one stands.
  int64_t fill() {
    int64_t filled = count;
    while (filled % lanes) keys[filled++] = keys[count - 1];
    return filled;
  }
};

// Where rows of keys are, half a vector of them at a time.
SC_INLINE void find_rows(const Stored* first, int64_t step, const int64_t* keys, int64_t count,
                         const Stored** rows) {
  using Places = Vector<int64_t, lanes / 2>;
  for (int64_t i = 0; i < count; i += lanes / 2)
    store(rows + i, load<Places>(keys + i) * step * static_cast<int64_t>(sizeof(Stored)) +
                        reinterpret_cast<int64_t>(first));
}

// Scales of the rows of a block, `filled` of them.
SC_INLINE void find_scales(const SCRows& of, const Group& group, const Block& block, int64_t filled,
                           float* scales) {
  const int64_t *keys = block.keys, last = block.count - 1;
  with_row(of, group.batch, group.kv_head, 0, [&](const auto* first) SC_INLINED {
    if (of.row == 1 && filled == block.count && keys[last] - keys[0] == last) {
      for (int64_t i = 0; i < filled; i += lanes)
        store(scales + i, load_floats<lanes>(first + keys[0] + i));
      return;
    }
    for (int64_t i = 0; i < filled; ++i) scales[i] = to_float(first[keys[i] * of.row]);
  });
}

// What a thread works with.
struct Few {
  const SCAttentionArguments& a;
  const int64_t rows;
  Terms* queries;  // [rows][few_key_steps]
  float* scores;   // [rows][block_keys], then weights: of pairs of keys as terms
};

// Words of a row, of which each has a bit for 64 keys.
SC_INLINE const uint64_t* words_of(const SCAttentionArguments& a, const Group& group, int64_t row) {
  const SCBlockMask& mask = *a.mask;
  const int64_t which = mask_of(mask, group.batch, group.head_of(a, row));
  return reinterpret_cast<const uint64_t*>(part_of(mask, mask.bits)) +
         (which * mask.q + row % a.q_length) * ceil_div(mask.kv, SC_TILE);
}

// Whether all rows of a group attend to the same keys.
SC_INLINE bool rows_agree(const SCAttentionArguments& a) {
  return !a.mask || (a.q_length == 1 && (a.mask->heads == 1 || groups == 1));
}

// Which keys of a block a row attends to: a bit for each.
SC_INLINE uint32_t bits_of(const uint64_t* words, const Block& block) {
  const int64_t first = block.keys[0], last = block.keys[block.count - 1];
  if (first / SC_TILE == last / SC_TILE && last - first == block.count - 1)
    return static_cast<uint32_t>(words[first / SC_TILE] >> first % SC_TILE);
  uint32_t bits = 0;
  for (int64_t i = 0; i < block.count; ++i)
    bits |= static_cast<uint32_t>(words[block.keys[i] / SC_TILE] >> block.keys[i] % SC_TILE & 1) << i;
  return bits;
}

// Scores of a row become weights.
SC_INLINE void weigh_row(const Few& few, const Group& group, const Block& block, int64_t row,
                         const State& state) {
  const SCAttentionArguments& a = few.a;
  float* scores = few.scores + row * block_keys;
  const bool is_biased = a.bias.data && (!a.mask || a.mask->is_biased);
  float scale = a.scale;
  if constexpr (is_scaled)
    for (int64_t i = 0; i < block.count; i += lanes)
      store(scores + i, load<Values>(scores + i) * load<Values>(block.k_scales + i));
  if (has_softcap || is_biased) {
    for (int64_t i = 0; i < block.count; i += lanes)
      store(scores + i, cap_score(load<Values>(scores + i), a.scale, a.softcap));
    scale = 1.0f;
  }
  if (is_biased) {
    with_row(a.bias, group.batch, group.head_of(a, row), row % a.q_length, [&](const auto* bias) {
      for (int64_t i = 0; i < block.count; ++i) scores[i] += to_float(bias[block.keys[i]]);
    });
  }
  uint32_t bits = static_cast<uint32_t>((uint64_t{1} << block.count) - 1);
  if (!rows_agree(a)) bits &= bits_of(words_of(a, group, row), block);
  Values most = broadcast(-infinity);
  for (int64_t i = 0; i < block.count; i += lanes) {
    const Values score = where(bits >> i, load<Values>(scores + i));
    store(scores + i, score);
    most = maximum(score, most);
  }
  const float largest = largest_of(most) * scale;
  if (largest > state.largest[row]) raise(state, row, largest);
  const Values base = base_of(broadcast(state.largest[row]));
  Values total{};
  for (int64_t i = 0; i < block.count; i += lanes) {
    Values weight = power_of_two<in_pairs>((load<Values>(scores + i) * scale - base) * log2_of_e);
    total += weight;
    if constexpr (is_scaled) weight = weight * load<Values>(block.v_scales + i);
    if constexpr (in_pairs)
      store_floats<lanes>(reinterpret_cast<bfloat16*>(scores) + i, weight);
    else
      store(scores + i, weight);
  }
  state.total[row] += sum<lanes>(total);
}

// sums += weights . v for all rows, as many at a time as registers have sums of.
SC_INLINE void sum_block(const Few& few, const Stored* const* values, int64_t count,
                         const Stored* next, const State& state) {
  constexpr int most_steps = sums_in_registers / step_depth;
  // Rows of integers are widened once for four rows of sums.
  constexpr int wanted = is_scaled ? most_steps / 4 : most_steps;
  constexpr int steps = few_value_steps < wanted ? few_value_steps : wanted;
  constexpr int rows_together = most_steps / steps < 4 ? most_steps / steps : 4;
  for (int64_t row = 0; row < few.rows; row += rows_together) {
    with_count<rows_together>(few.rows - row, [&](auto rows) SC_INLINED {
      for (int64_t step = 0; step < few_value_steps; step += steps) {
        with_count<steps>(few_value_steps - step, [&](auto part) SC_INLINED {
          if constexpr (part.value == steps || part.value == few_value_steps % steps)
            sum_few<rows.value, part.value>(
                values, count, row + step == 0 ? next : nullptr, few.a.k.row, step,
                few.scores + row * block_keys, state.sums + row * sum_columns + step * few_step);
        });
      }
    });
  }
}

SC_SHARED void attend_to_block(const Few& few, const Group& group, Block& block, const State& state) {
  const SCAttentionArguments& a = few.a;
  alignas(64) const Stored *keys[block_keys], *values[block_keys];
  const int64_t filled = block.fill();
  find_rows(row_of<Stored>(a.k, group.batch, group.kv_head, 0), a.k.row, block.keys, filled, keys);
  find_rows(row_of<Stored>(a.v, group.batch, group.kv_head, 0), a.v.row, block.keys, filled, values);
  if constexpr (is_scaled) {
    find_scales(a.k_scale, group, block, filled, block.k_scales);
    find_scales(a.v_scale, group, block, filled, block.v_scales);
  }
  for (int64_t i = 0; i < block.count; i += lanes) {
    for (int64_t row = 0; row < few.rows; row += rows_of_scores) {
      with_count<rows_of_scores>(few.rows - row, [&](auto rows) SC_INLINED {
        score_keys<rows.value>(keys + i, row == 0 ? values + i : nullptr,
                               few.queries + row * few_key_steps,
                               few.scores + row * block_keys + i);
      });
    }
  }
  for (int64_t row = 0; row < few.rows; ++row) weigh_row(few, group, block, row, state);
  sum_block(few, values, block.count, keys[0] + block_keys * a.k.row, state);
}

}  // namespace
