// Which keys the queries of a row of tiles attend to, whatever form the mask has.

namespace {

constexpr uint64_t all_bits = ~uint64_t{0};

// A tile that is kept.
struct Tile {
  int64_t first_key;
  const uint64_t* words;  // of every key a bit for each query, or null where every place counts
  bool is_biased;
};

SC_INLINE const char* part_of(const SCBlockMask& mask, int64_t offset) {
  return reinterpret_cast<const char*>(&mask) + offset;
}

// Which of all masks is that of a batch entry and a head.
SC_INLINE int64_t mask_of(const SCBlockMask& mask, int64_t batch, int64_t head) {
  return (mask.batch == 1 ? 0 : batch) * mask.heads + (mask.heads == 1 ? 0 : head);
}

// Of every key from `first_key` on a bit for each query, from a bit for each key of every query.
inline bool turn_words(const uint64_t* words, int64_t queries, int64_t step, uint64_t* turned) {
  uint64_t any = 0;
  std::memset(turned, 0, SC_TILE * sizeof(uint64_t));
  for (int64_t i = 0; i < queries; ++i) {
    any |= words[i * step];
    for (uint64_t left = words[i * step]; left; left &= left - 1)
      turned[__builtin_ctzll(left)] |= uint64_t{1} << i;
  }
  return any != 0;
}

// visit(tile) for the kept tiles of a row of them, by rising keys.
template <class Visit>
SC_INLINE void visit_tiles(const SCAttentionArguments& a, int64_t batch, int64_t head, int64_t row,
                           Visit&& visit) {
  const bool has_bias = a.bias.data != nullptr;
  const int64_t columns = ceil_div(a.kv_length, SC_TILE);
  if (!a.mask) {
    for (int64_t j = 0; j < columns; ++j) visit(Tile{j * SC_TILE, nullptr, has_bias});
    return;
  }
  const SCBlockMask& mask = *a.mask;
  const auto* bits = reinterpret_cast<const uint64_t*>(part_of(mask, mask.bits));
  const int64_t which = mask_of(mask, batch, head);
  if (mask.form == 2) {
    const uint64_t* words = bits + which * mask.q * columns;
    uint64_t turned[SC_TILE];
    for (int64_t j = 0; j < columns; ++j)
      if (turn_words(words + j, mask.q, columns, turned))
        visit(Tile{j * SC_TILE, turned, has_bias && mask.is_biased});
    return;
  }
  const auto* starts = reinterpret_cast<const int32_t*>(part_of(mask, mask.starts));
  const auto* tiles = reinterpret_cast<const int32_t*>(part_of(mask, mask.tiles));
  const auto* kinds = reinterpret_cast<const int32_t*>(part_of(mask, mask.kinds));
  const int64_t at = which * ceil_div(mask.q, SC_TILE) + row;
  for (int64_t place = starts[at]; place < starts[at + 1]; ++place) {
    const int32_t kind = kinds[place];
    visit(Tile{tiles[place] * SC_TILE, kind < 0 ? nullptr : bits + kind * SC_TILE,
               kind == SC_BIASED});
  }
}

}  // namespace
