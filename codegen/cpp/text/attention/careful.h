// One query, by the definition: where a result is NaN. Weights of zero times keys that a query does not
// attend to are NaN if these hold NaN or infinities, and then leave no trace of what they are added to.

namespace {

// visit(key, score) for every key that a query attends to.
template <class Visit>
inline void visit_scores(const SCAttentionArguments& a, int64_t batch, int64_t head, int64_t query,
                         Visit&& visit) {
  const Element* q = row_of(a.q, batch, head, query);
  visit_tiles(a, batch, head, query / SC_TILE, [&](const Tile& tile) {
    const int64_t keys = a.kv_length - tile.first_key < SC_TILE ? a.kv_length - tile.first_key : SC_TILE;
    for (int64_t n = 0; n < keys; ++n) {
      if (tile.words && !(tile.words[n] >> query % SC_TILE & 1)) continue;
      const int64_t key = tile.first_key + n;
      const Stored* k = row_of<Stored>(a.k, batch, kv_head_of(head), key);
      double dot = 0.0;
      for (int64_t d = 0; d < head_dim; ++d) dot += double{to_float(q[d])} * to_float(k[d]);
      dot *= scale_of(a.k_scale, batch, kv_head_of(head), key);
      float score = cap_score(broadcast(static_cast<float>(dot)), a.scale, a.softcap)[0];
      if (tile.is_biased)
        with_row(a.bias, batch, head, query, [&](const auto* bias) { score += to_float(bias[key]); });
      visit(key, score);
    }
  });
}

SC_SHARED void attend_carefully(const SCAttentionArguments& a, int64_t batch, int64_t head,
                                int64_t query) {
  float largest = -infinity;
  double total = 0.0, sums[value_dim] = {};
  visit_scores(a, batch, head, query,
               [&](int64_t, float score) { largest = score > largest ? score : largest; });
  const float base = largest == -infinity ? 0.0f : largest;
  visit_scores(a, batch, head, query, [&](int64_t key, float score) {
    const double weight = exponential(score - base);
    const double scaled = weight * scale_of(a.v_scale, batch, kv_head_of(head), key);
    const Stored* v = row_of<Stored>(a.v, batch, kv_head_of(head), key);
    total += weight;
    for (int64_t d = 0; d < value_dim; ++d) sums[d] += scaled * to_float(v[d]);
  });
  Element* out = row_to_write(a.out, batch, head, query);
  const double share = total == 0.0 ? 0.0 : 1.0 / total;
  for (int64_t d = 0; d < value_dim; ++d)
    out[d] = from_float<Element>(static_cast<float>(sums[d] * share));
}

}  // namespace
