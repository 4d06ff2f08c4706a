// The loops over many rows of x with vectors alone.

namespace {

struct TileRegisters {
  TileRegisters() {}
};

inline void multiply_chunk(const Chunk& chunk, const Activation* x, int64_t x_stride,
                           int64_t x_tiles, Sum* sums, Expander&) {
  multiply_chunk_by_vectors(chunk, x, x_stride, x_tiles, sums);
}

}  // namespace
