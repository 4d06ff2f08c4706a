// Tiles of x times expanded tiles of W, with vectors.

namespace {

// Sums of a tile of x += x times some strips of the chunk from the `first`; rows of x at once, so that
// the sums stay in registers.
template <int strips>
SC_SHARED void multiply_vectors(const Chunk& chunk, int first, const Activation* x, Sum* sums) {
  constexpr int rows = rows_at_once(strips);
  for (int64_t part_of_tile = 0; part_of_tile < x_rows; part_of_tile += rows) {
    Sums total[rows][strips];
    Sum* at = sums + first * sums_tile + part_of_tile * strip_rows;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s)
        total[i][s] = Sums{};
    for (int64_t t = 0; t < chunk.count; ++t) {
      const Activation* part = x + chunk.place(t) * x_tile + part_of_tile * pack_columns;
#pragma GCC unroll 2
      for (int64_t c = 0; c < pack_columns; c += operand_depth) {
        Register w[strips];
#pragma GCC unroll 4
        for (int s = 0; s < strips; ++s)
          w[s] = load_once(chunk.packs[first + s] + t * w_tile + c * strip_rows);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
          for (int s = 0; s < strips; ++s)
            total[i][s] = multiply_expanded(total[i][s], w[s], part + i * pack_columns + c);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) {
        // Chunk by chunk: sums of sums are more exact than one long sum.
        Sum* to = at + s * sums_tile + i * strip_rows;
        store(to, chunk.begins ? total[i][s] : load<Sums>(to) + total[i][s]);
      }
  }
}

// A tile of x times `strips` strips of a chunk at once while there are so many, then fewer.
template <int strips>
SC_INLINE void multiply_strips_of_chunk(const Chunk& chunk, int first, const Activation* x,
                                        Sum* sums) {
  for (; first + strips <= chunk.strips; first += strips)
    multiply_vectors<strips>(chunk, first, x, sums);
  if constexpr (strips > 1) multiply_strips_of_chunk<strips - 1>(chunk, first, x, sums);
}

// All tiles of x of a panel, `x_stride` apart, times the strips of the chunk.
inline void multiply_chunk_by_vectors(const Chunk& chunk, const Activation* x, int64_t x_stride,
                                      int64_t x_tiles, Sum* sums) {
  constexpr int strips = group_strips < strips_at_once ? group_strips : strips_at_once;
  for (int64_t i = 0; i < x_tiles; ++i, x += x_stride, sums += group_strips * sums_tile)
    multiply_strips_of_chunk<strips>(chunk, 0, x, sums);
}

}  // namespace
