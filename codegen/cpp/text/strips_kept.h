// Tiles of x times paired tiles of W, whose kept values are multiplied and nothing else: a lane has its
// activation from the four that its pair was kept of.

namespace {

// Sums of a tile of x += x times a strip of the chunk.
SC_SHARED void multiply_pairs(const Chunk& chunk, int strip, const Activation* x, Sum* sums) {
  constexpr int rows = sums_in_registers;
  for (int64_t first = 0; first < x_rows; first += rows, sums += rows * strip_rows) {
    Singles total[rows] = {};
    for (int64_t t = 0; t < chunk.count; ++t) {
      const Activation* part = x + chunk.place(t) * x_tile + first * pack_columns;
      const Operand* w = chunk.packs[strip] + t * w_tile;
      KeptColumns kept;
      kept.open_tile(reinterpret_cast<const char*>(w));
      for (int column = 0; column < stored_columns; column += 2, part += group_columns_of_pair) {
        kept.next(column / depth);
        Singles pair[2];
#pragma GCC unroll 2
        for (int c = 0; c < 2; ++c) pair[c] = load<Singles>(w + (1 + column + c) * strip_rows);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
          for (int c = 0; c < 2; ++c) {
            const Singles activations = activations_of(kept, part + i * pack_columns, c);
            total[i] = fused_multiply_add(pair[c], activations, total[i]);
          }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Sum* to = sums + i * strip_rows;
      store(to, chunk.begins ? total[i] : load<Singles>(to) + total[i]);
    }
  }
}

// All tiles of x of a panel, `x_stride` apart, times the strips of the chunk.
inline void multiply_chunk_by_vectors(const Chunk& chunk, const Activation* x, int64_t x_stride,
                                      int64_t x_tiles, Sum* sums) {
  for (int64_t i = 0; i < x_tiles; ++i, x += x_stride, sums += group_strips * sums_tile)
    for (int s = 0; s < chunk.strips; ++s) multiply_pairs(chunk, s, x, sums + s * sums_tile);
}

}  // namespace
