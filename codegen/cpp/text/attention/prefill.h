// Many queries: rows of tiles, shared out one by one.

#include <atomic>

namespace {

struct Unit {
  int64_t batch, head, row;
};

SC_INLINE void attend_to_tile(const SCAttentionArguments& a, const Unit& unit, int64_t queries,
                              const Tile& tile, Scratch& scratch) {
  const int64_t left = a.kv_length - tile.first_key, keys = left < SC_TILE ? left : SC_TILE;
  const int64_t head = kv_head_of(unit.head), first_query = unit.row * SC_TILE;
  const uint64_t* words = tile.words;
  uint64_t edge[SC_TILE];
  if (!words && keys % 16) {
    for (int64_t n = 0; n < SC_TILE; ++n) edge[n] = n < keys ? all_bits : 0;
    words = edge;
  }
  const Live live(words, keys, queries);
  const Rows k = stage_keys(a, unit.batch, head, tile.first_key, keys, scratch);
  const Rows v = stage_values(a, unit.batch, head, tile.first_key, keys, scratch);
  if (tile.is_biased)
    stage_bias(a, unit.batch, unit.head, first_query, queries, tile.first_key, keys, scratch);
  for (int s = 0; s < strips_of_tile; ++s) {
    const Strips needed = live.queries[s];
    score_strip({k.data + 16 * s * k.step, k.step}, needed.begin * vectors_of_strip,
                needed.end * vectors_of_strip, scratch, scratch.scores + 16 * s);
  }
  for (int z = 0; z < strips_of_tile; ++z) {
    const Strips strips = live.keys[z];
    if (strips.none()) continue;
    const float scale = finish_scores(a, tile.is_biased, 16 * z, strips, scratch);
    if (words) mask_scores(words, 16 * z, strips, scratch);
    for (int i = 0; i < vectors_of_strip; ++i) weigh(scale, 16 * z + i * lanes, strips, scratch);
    sum_values(16 * z, strips, keys, v, scratch);
  }
}

// out = sums / total for the queries of a row of tiles.
SC_SHARED void finish_row(const SCAttentionArguments& a, const Unit& unit, int64_t queries,
                          const Scratch& scratch) {
  for (int64_t i = 0; i < queries; ++i) {
    const float total = scratch.total[i], share = total == 0.0f ? 0.0f : 1.0f / total;
    Element* out = row_to_write(a.out, unit.batch, unit.head, unit.row * SC_TILE + i);
    Nans nans;
    for (int64_t block = 0; block < value_blocks; ++block) {
      for (int v = 0; v < value_vectors; ++v) {
        const Values sums = load<Values>(&scratch.sums[block][i][v * lanes]) * share;
        nans.see(sums);
        store_floats<lanes>(out + column_of(block) + v * lanes, sums);
      }
    }
    if (nans.any()) attend_carefully(a, unit.batch, unit.head, unit.row * SC_TILE + i);
  }
}

inline void attend_row(const SCAttentionArguments& a, const Unit& unit, Scratch& scratch) {
  const int64_t first = unit.row * SC_TILE;
  const int64_t queries = a.q_length - first < SC_TILE ? a.q_length - first : SC_TILE;
  stage_queries(a, unit.batch, unit.head, first, queries, scratch);
  std::memset(scratch.sums, 0, sizeof scratch.sums);
  for (int64_t i = 0; i < SC_TILE; ++i) {
    scratch.largest[i] = -infinity;
    scratch.total[i] = 0.0f;
  }
  visit_tiles(a, unit.batch, unit.head, unit.row,
              [&](const Tile& tile) { attend_to_tile(a, unit, queries, tile, scratch); });
  finish_row(a, unit, queries, scratch);
}

}  // namespace

SC_EXPORT void sc_attention(const SCAttentionArguments* arguments) {
  const SCAttentionArguments& a = *arguments;
  const int64_t rows = ceil_div(a.q_length, SC_TILE), units = a.batch * a.heads * rows;
  auto* scratch = static_cast<Scratch*>(a.workspace);
  std::atomic<int64_t> next{0};
  parallel(a.threads < units ? a.threads : units, [&](int64_t thread, int64_t) {
    // Causal rows grow: the longest come first.
    for (int64_t unit; (unit = next.fetch_add(1)) < units;) {
      const int64_t head = unit / rows;
      attend_row(a, {head / a.heads, head % a.heads, rows - 1 - unit % rows}, scratch[thread]);
    }
  });
}
