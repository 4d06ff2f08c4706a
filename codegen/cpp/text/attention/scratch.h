// What a thread keeps of the row of tiles that it works at.

namespace {

constexpr int64_t key_steps = head_dim / step_depth;  // of the product of a query and a key

// Columns of v are multiplied in blocks of so many vectors. Those of the last two blocks may overlap.
constexpr int64_t blocks_of_columns(int64_t vectors) { return ceil_div(value_dim, vectors * lanes); }
// Loads and products of a step, for six rows.
constexpr int64_t cost_of_columns(int64_t vectors) {
  return blocks_of_columns(vectors) * (6 * vectors + vectors + 6);
}
constexpr int best_vectors() {
  int best = 1;
  for (int vectors = 2; vectors <= vectors_at_once && vectors * lanes <= value_dim; ++vectors)
    if (cost_of_columns(vectors) <= cost_of_columns(best)) best = vectors;
  return best;
}
constexpr int value_vectors = best_vectors();
constexpr int64_t value_blocks = blocks_of_columns(value_vectors);
constexpr int64_t block_columns = value_vectors * lanes;
SC_INLINE constexpr int64_t column_of(int64_t block) {
  const int64_t column = block * block_columns, last = value_dim - block_columns;
  return column < last ? column : last;
}

struct alignas(64) Scratch {
  Term queries[key_steps][SC_TILE];           // turned
  float scores[SC_TILE][SC_TILE];             // [key][query], then weights: of pairs of keys as terms
  float bias[SC_TILE][SC_TILE];               // [key][query]
  float sums[value_blocks][SC_TILE][block_columns];
  Term keys[SC_TILE][key_steps];              // where they are not read in place
  Term values[SC_TILE / step_depth][value_dim];
  float largest[SC_TILE], total[SC_TILE], kept[SC_TILE];  // of every query; share of the sums that is kept
};

// Rows of terms in place or in the scratch; bytes from one to the next.
struct Rows {
  const char* data;
  int64_t step;
};

// Up to 64 queries turned, those that are missing zero.
SC_SHARED void stage_queries(const SCAttentionArguments& a, int64_t batch, int64_t head,
                             int64_t first, int64_t queries, Scratch& scratch) {
  for (int64_t i = 0; i < SC_TILE; i += lanes) {
    cover<key_steps, lanes>([&](int64_t t) SC_INLINED {
      Values rows[lanes];
#pragma GCC unroll 16
      for (int64_t r = 0; r < lanes; ++r) {
        rows[r] = Values{};
        if (i + r >= queries) continue;
        const Element* q = row_of(a.q, batch, head, first + i + r) + t * step_depth;
        if constexpr (in_pairs)
          rows[r] = load<Values>(q);
        else
          rows[r] = load_floats<lanes>(q);
      }
      turn(rows);
#pragma GCC unroll 16
      for (int64_t s = 0; s < lanes; ++s) store(&scratch.queries[t + s][i], rows[s]);
    });
  }
}

// Keys of a tile: in place where they are terms and all of a strip are there.
inline Rows stage_keys(const SCAttentionArguments& a, int64_t batch, int64_t head, int64_t first,
                       int64_t keys, Scratch& scratch) {
  constexpr bool are_terms = in_pairs ? !is_scaled : std::is_same_v<Stored, float>;
  const char* data = reinterpret_cast<const char*>(row_of<Stored>(a.k, batch, head, first));
  if (are_terms && keys % 16 == 0) return {data, a.k.row * static_cast<int64_t>(sizeof(Stored))};
  for (int64_t n = 0; n < keys; ++n) {
    const Stored* k = row_of<Stored>(a.k, batch, head, first + n);
    if constexpr (are_terms) {
      std::memcpy(scratch.keys[n], k, sizeof scratch.keys[n]);
    } else {
      auto* terms = reinterpret_cast<std::conditional_t<in_pairs, bfloat16, float>*>(scratch.keys[n]);
      const float scale = scale_of(a.k_scale, batch, head, first + n);
      cover<head_dim, lanes>([&](int64_t d) SC_INLINED {
        store_floats<lanes>(terms + d, load_floats<lanes>(k + d) * scale);
      });
    }
  }
  for (int64_t n = keys; n % 16; ++n) std::memset(scratch.keys[n], 0, sizeof scratch.keys[n]);
  return {reinterpret_cast<const char*>(scratch.keys), sizeof scratch.keys[0]};
}

// Stored values as the bits of bfloat16.
SC_INLINE Pairs load_halves(const Stored* from, float scale) {
  uint16_t halves[lanes];
  if constexpr (is_scaled)
    store_floats<lanes>(reinterpret_cast<bfloat16*>(halves), load_floats<lanes>(from) * scale);
  else
    std::memcpy(halves, from, sizeof halves);
  return __builtin_convertvector(load<Vector<uint16_t, lanes>>(halves), Pairs);
}

// Values of a tile: rows of floats, or rows of pairs from two rows each.
inline Rows stage_values(const SCAttentionArguments& a, int64_t batch, int64_t head, int64_t first,
                         int64_t keys, Scratch& scratch) {
  if constexpr (std::is_same_v<Stored, float>) {
    return {reinterpret_cast<const char*>(row_of(a.v, batch, head, first)),
            a.v.row * static_cast<int64_t>(sizeof(float))};
  } else if constexpr (in_pairs) {
    for (int64_t n = 0; n < keys; n += 2) {
      const Stored* v = row_of<Stored>(a.v, batch, head, first + n);
      const bool is_alone = n + 1 == keys;
      const Stored* next = is_alone ? v : v + a.v.row;
      const float scale = scale_of(a.v_scale, batch, head, first + n);
      const float next_scale = scale_of(a.v_scale, batch, head, first + n + !is_alone);
      cover<value_dim, lanes>([&](int64_t d) SC_INLINED {
        const Pairs upper = load_halves(next + d, next_scale) << 16;
        store(&scratch.values[n / 2][d], load_halves(v + d, scale) | (is_alone ? Pairs{} : upper));
      });
    }
  } else {
    for (int64_t n = 0; n < keys; ++n) {
      const Stored* v = row_of<Stored>(a.v, batch, head, first + n);
      const float scale = scale_of(a.v_scale, batch, head, first + n);
      cover<value_dim, lanes>([&](int64_t d) SC_INLINED {
        store(&scratch.values[n][d], load_floats<lanes>(v + d) * scale);
      });
    }
  }
  return {reinterpret_cast<const char*>(scratch.values), sizeof scratch.values[0]};
}

// The bias of a tile, turned.
SC_SHARED void stage_bias(const SCAttentionArguments& a, int64_t batch, int64_t head,
                          int64_t first_query, int64_t queries, int64_t first_key, int64_t keys,
                          Scratch& scratch) {
  for (int64_t i = 0; i < SC_TILE; i += lanes) {
    for (int64_t n = 0; n < keys; n += lanes) {
      Values rows[lanes] = {};
      for (int64_t r = 0; r < lanes && i + r < queries; ++r) {
        with_row(a.bias, batch, head, first_query + i + r, [&](const auto* bias) SC_INLINED {
          rows[r] = load_some(bias + first_key + n, keys - n);
        });
      }
      turn(rows);
#pragma GCC unroll 16
      for (int64_t s = 0; s < lanes; ++s) store(&scratch.bias[n + s][i], rows[s]);
    }
  }
}

}  // namespace
