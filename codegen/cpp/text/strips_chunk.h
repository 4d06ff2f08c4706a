// What the loops over many rows of x multiply: a chunk of expanded tiles of W.

namespace {

constexpr int64_t x_rows = 16;
// Columns that are multiplied together: a tile of the layout, two of them where 64 fit a vector.
constexpr int64_t pack_columns = multiplies_integers ? 64 : tile_columns;
constexpr int64_t pack_tiles = pack_columns / tile_columns;
constexpr int64_t x_tile = x_rows * pack_columns;
constexpr int64_t w_tile = strip_rows * pack_columns;
constexpr int64_t sums_tile = x_rows * strip_rows;
constexpr int64_t chunk_tiles = batch_columns / tile_columns;

// Whether tiles stand in the stream as they are multiplied.
constexpr bool stream_is_expanded = !masked && multiplies_pairs && value_bits == 16;

SC_INLINE void expand_tile(Reader& reader, Operand* out) {
#pragma GCC unroll 32
  for (int v = 0; v < vectors; ++v)
    store_expanded(reader, reader.next(v), out + v * codes_per_vector);
}

// Packs of tiles in a row of W or x.
inline int64_t packs_of(const Strips& w) { return ceil_div(w.tiles, pack_tiles); }

// Elements of the scratch for one strip. Where tiles are missing from the last pack, x is zero.
inline int64_t scratch_size(const Strips& w) {
  const int64_t tiles = w.tiles < chunk_tiles ? w.tiles : chunk_tiles;
  return ceil_div(tiles, pack_tiles) * w_tile;
}

// Packs of W that are multiplied together: where each strip's lie and which columns they cover.
struct Chunk {
  const Operand* strips[group_strips];  // expanded packs, one after the other
  const int32_t* places;                // only if `skips`: the tile of x for each
  int64_t first, count;                 // elsewhere packs [first, first + count)

  SC_INLINE int64_t place(int64_t t) const { return skips ? places[t] : first + t; }
};

// Sums of a tile of x += x times one or two strips of the chunk from the `first`, with vectors.
template <int strips>
SC_INLINE void multiply_vectors(const Chunk& chunk, int first, const Activation* x, Sum* sums) {
  constexpr int rows = 8;
  for (int64_t half = 0; half < x_rows; half += rows) {
    Sums total[rows][strips];
    Sum* at = sums + first * sums_tile + half * strip_rows;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int s = 0; s < strips; ++s)
        total[i][s] = Sums{};
    for (int64_t t = 0; t < chunk.count; ++t) {
      const Activation* part = x + chunk.place(t) * x_tile + half * pack_columns;
#pragma GCC unroll 2
      for (int64_t c = 0; c < pack_columns; c += operand_depth) {
        __m512i w[strips];
#pragma GCC unroll 2
        for (int s = 0; s < strips; ++s)
          w[s] = load<__m512i>(chunk.strips[first + s] + t * w_tile + c * strip_rows);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
          for (int s = 0; s < strips; ++s)
            total[i][s] = multiply_expanded(total[i][s], w[s], part + i * pack_columns + c);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int s = 0; s < strips; ++s) {
        // Chunk by chunk: sums of sums are more exact than one long sum.
        Sum* to = at + s * sums_tile + i * strip_rows;
        store(to, load<Sums>(to) + total[i][s]);
      }
  }
}

// All tiles of x of a panel, `x_stride` apart, times the strips of the chunk.
inline void multiply_chunk_by_vectors(const Chunk& chunk, int strips, const Activation* x,
                                      int64_t x_stride, int64_t x_tiles, Sum* sums) {
  for (int64_t i = 0; i < x_tiles; ++i, x += x_stride, sums += group_strips * sums_tile) {
    int first = 0;
    for (; first + 2 <= strips; first += 2) multiply_vectors<2>(chunk, first, x, sums);
    if (first < strips) multiply_vectors<1>(chunk, first, x, sums);
  }
}

}  // namespace
