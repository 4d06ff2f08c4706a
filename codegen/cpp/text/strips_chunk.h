// What the loops over many rows of x multiply: a chunk of expanded tiles of W.

namespace {

constexpr int64_t x_rows = 16;
constexpr int64_t x_tile = x_rows * tile_columns;
constexpr int64_t w_tile = strip_rows * tile_columns;
constexpr int64_t chunk_tiles = skips ? 1 << 30 : batch_columns / tile_columns;

// What W is multiplied as: the type of the activations.
using Operand = Activation;

SC_INLINE void store_expanded(__m512i codes, bfloat16* out) { _mm512_storeu_si512(out, codes); }

SC_INLINE void store_expanded(__m512i codes, float* out) {
  for (int c = 0; c < depth; ++c) _mm512_storeu_ps(out + c * strip_rows, floats_of(codes, c));
}

SC_INLINE void expand_tile(Reader& reader, Operand* out) {
  reader.open_tile();
#pragma GCC unroll 32
  for (int v = 0; v < vectors; ++v) store_expanded(reader.next(v), out + v * codes_per_vector);
}

// Tiles of the scratch for one strip.
inline int64_t scratch_tiles(const Strips& w) {
  return w.tiles < chunk_tiles ? w.tiles : chunk_tiles;
}

// Tiles of W that are multiplied together: where each strip's lie and which columns they cover.
struct Chunk {
  const Operand* strips[group_strips];  // expanded tiles, one after the other
  const int32_t* places;                // only if `skips`: the tile of x for each
  int64_t first, count;                 // elsewhere tiles [first, first + count)
  const char* soon[group_strips];       // what will be read after this chunk
  int64_t soon_bytes[group_strips];

  SC_INLINE int64_t place(int64_t t) const { return skips ? places[t] : first + t; }

  // Fetch the part-th of `parts` equal parts of what comes next.
  SC_INLINE void prefetch_part(int strips, int64_t part, int64_t parts) const {
    for (int s = 0; s < strips; ++s) {
      const Range bytes = share(soon_bytes[s] / 64, part, parts);
      for (int64_t i = bytes.begin; i < bytes.end; ++i) __builtin_prefetch(soon[s] + 64 * i, 0, 2);
    }
  }
};

// Sums of a tile of x += x times one or two strips of the chunk from the `first`, with vectors.
template <int strips>
SC_INLINE void multiply_vectors(const Chunk& chunk, int first, const Activation* x, float* sums) {
  constexpr int rows = 8, step = multiplies_pairs ? 2 : 1;
  for (int64_t half = 0; half < x_rows; half += rows) {
    __m512 total[rows][strips];
    float* at = sums + (first * x_rows + half) * strip_rows;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int s = 0; s < strips; ++s)
        total[i][s] = _mm512_loadu_ps(at + s * x_rows * strip_rows + i * strip_rows);
    for (int64_t t = 0; t < chunk.count; ++t) {
      const Activation* part = x + chunk.place(t) * x_tile + half * tile_columns;
#pragma GCC unroll 2
      for (int64_t c = 0; c < tile_columns; c += step) {
        __m512i w[strips];
#pragma GCC unroll 2
        for (int s = 0; s < strips; ++s)
          w[s] = load<__m512i>(chunk.strips[first + s] + t * w_tile + c * strip_rows);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
          for (int s = 0; s < strips; ++s)
            total[i][s] = multiply_expanded(total[i][s], w[s], part + i * tile_columns + c);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int s = 0; s < strips; ++s)
        _mm512_storeu_ps(at + s * x_rows * strip_rows + i * strip_rows, total[i][s]);
  }
}

}  // namespace
