// A tile of queries and keys: scores, weights, and the sums of values.

namespace {

constexpr int vectors_of_tile = SC_TILE / lanes, strips_of_tile = SC_TILE / 16;
constexpr int vectors_of_strip = 16 / lanes;

struct Strips {
  int begin = strips_of_tile, end = 0;
  SC_INLINE bool none() const { return begin >= end; }
};

// Which strips of 16 keys meet which 16 queries: where any of the words' bits is set.
struct Live {
  Strips queries[strips_of_tile];  // those of queries that a strip of keys needs
  Strips keys[strips_of_tile];     // and those of keys that 16 queries need

  Live(const uint64_t* words, int64_t keys_there, int64_t queries_there) {
    const int count = static_cast<int>(ceil_div(keys_there, 16));
    for (int s = 0; s < count; ++s) {
      uint64_t any = words ? 0 : all_bits;
      for (int n = 0; words && n < 16; ++n) any |= words[16 * s + n];
      for (int z = 0; 16 * z < queries_there; ++z) {
        if (!(any >> 16 * z & 0xffff)) continue;
        if (queries[s].none()) queries[s].begin = z;
        if (keys[z].none()) keys[z].begin = s;
        queries[s].end = z + 1;
        keys[z].end = s + 1;
      }
    }
  }
};

// scores[key][query] = k . q for 16 keys and some vectors of queries.
SC_SHARED void score_strip(Rows keys, int begin, int end, const Scratch& scratch,
                           float (*scores)[SC_TILE]) {
  for (int v = begin; v < end; v += vectors_at_once) {
    with_count<vectors_at_once>(end - v, [&](auto vectors) SC_INLINED {
      sixteen_rows([&](auto rows, int row) SC_INLINED {
        Values sums[rows.value][vectors.value] = {};
        accumulate(Across{keys.data + row * keys.step, keys.step, sizeof(Term)},
                   Along{reinterpret_cast<const char*>(&scratch.queries[0][v * lanes]),
                         sizeof scratch.queries[0]},
                   key_steps, sums);
#pragma GCC unroll 6
        for (int r = 0; r < rows.value; ++r)
#pragma GCC unroll 4
          for (int i = 0; i < vectors.value; ++i)
            store(&scores[row + r][(v + i) * lanes], sums[r][i]);
      });
    });
  }
}

// sums[query] = kept * sums[query] + weights . v for 16 queries and some strips of keys.
SC_SHARED void sum_values(int first_query, Strips strips, int64_t keys_there, Rows values,
                          Scratch& scratch) {
  const int64_t first = strips.begin * 16 / step_depth;
  const int64_t end = strips.end * 16 < keys_there ? strips.end * 16 : keys_there;
  const int64_t steps = ceil_div(end, step_depth) - first;
  for (int64_t block = 0; block < value_blocks; ++block) {
    const char* data = values.data + first * values.step + column_of(block) * sizeof(Term);
    sixteen_rows([&](auto rows, int row) SC_INLINED {
      const int query = first_query + row;
      Values sums[rows.value][value_vectors];
#pragma GCC unroll 6
      for (int r = 0; r < rows.value; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < value_vectors; ++v)
          sums[r][v] = load<Values>(&scratch.sums[block][query + r][v * lanes]) *
                       scratch.kept[query + r];
      accumulate(Across{reinterpret_cast<const char*>(&scratch.scores[first][query]), sizeof(float),
                        sizeof scratch.scores[0]},
                 Along{data, values.step}, steps, sums);
#pragma GCC unroll 6
      for (int r = 0; r < rows.value; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < value_vectors; ++v)
          store(&scratch.sums[block][query + r][v * lanes], sums[r][v]);
    });
  }
}

// -inf where a query does not attend to a key.
SC_INLINE void mask_scores(const uint64_t* words, int first_query, Strips strips,
                           Scratch& scratch) {
  for (int n = strips.begin * 16; n < strips.end * 16; ++n) {
    for (int v = 0; v < vectors_of_strip; ++v) {
      const int query = first_query + v * lanes;
      float* scores = &scratch.scores[n][query];
      store(scores, where(static_cast<uint32_t>(words[n] >> query), load<Values>(scores)));
    }
  }
}

// What is not done by a factor: a cap, a bias. The factor that is left.
SC_INLINE float finish_scores(const SCAttentionArguments& a, bool is_biased, int first_query,
                              Strips strips, Scratch& scratch) {
  if (!has_softcap && !is_biased) return a.scale;
  for (int n = strips.begin * 16; n < strips.end * 16; ++n) {
    for (int v = 0; v < vectors_of_strip; ++v) {
      const int query = first_query + v * lanes;
      Values score = cap_score(load<Values>(&scratch.scores[n][query]), a.scale, a.softcap);
      if (is_biased) score += load<Values>(&scratch.bias[n][query]);
      store(&scratch.scores[n][query], score);
    }
  }
  return 1.0f;
}

// Scores become weights, for a vector of queries; the sums so far are to be kept in part.
SC_INLINE void weigh(float scale, int query, Strips strips, Scratch& scratch) {
  const int begin = strips.begin * 16, end = strips.end * 16;
  const auto score = [&](int n) SC_INLINED { return load<Values>(&scratch.scores[n][query]); };
  Values even = score(begin), odd = score(begin + 1);
  for (int n = begin + 2; n < end; n += 2) {
    even = maximum(score(n), even);
    odd = maximum(score(n + 1), odd);
  }
  const Values before = load<Values>(&scratch.largest[query]);
  const Values largest = maximum(maximum(even, odd) * scale, before), base = base_of(largest);
  const Values kept = power_of_two<false>((before - base) * log2_of_e);
  Values total = load<Values>(&scratch.total[query]) * kept, more{};
  const auto weight = [&](int n) SC_INLINED {
    return power_of_two<in_pairs>((score(n) * scale - base) * log2_of_e);
  };
#pragma GCC unroll 2
  for (int n = begin; n < end; n += 2) {
    const Values first = weight(n), second = weight(n + 1);
    total += first;
    more += second;
    if constexpr (in_pairs) {
      // To nearest; ties go up, as weights are not negative.
      const Pairs low = (bit_cast<Pairs>(first) + 0x8000) >> 16;
      const Pairs high = (bit_cast<Pairs>(second) + 0x8000) & 0xffff0000;
      store(&scratch.scores[n / 2][query], low | high);
    } else {
      store(&scratch.scores[n][query], first);
      store(&scratch.scores[n + 1][query], second);
    }
  }
  store(&scratch.largest[query], largest);
  store(&scratch.kept[query], kept);
  store(&scratch.total[query], total + more);
}

}  // namespace
