// Few rows of x as floats: every vector of W is expanded into a register and multiplied at once.

namespace {

// Some CPUs multiply pairs of bfloat16 no faster than they multiply floats twice.
using DecodeActivation = std::conditional_t<decode_pairs != 0, Activation, float>;

// Vectors of a strip between two tests of the loop: longer code runs slower, and builds slowly.
constexpr int together = 4;
static_assert(vectors % together == 0);

// The rows of x, and zeros where it has no columns, those of a tile of columns together: one register
// tells where all of them are.
struct FloatRows {
  static constexpr int sums_of_row = 1;

  int64_t rows, tiles;
  DecodeActivation* values;  // [tile][row][tile_columns]
  float* scales;             // [row], where x is rounded: values are integers then

  static int64_t bytes(int64_t rows, int64_t k) {
    const int64_t scales = rounds_activations ? sizeof(float) * rows : 0;
    return sizeof(DecodeActivation) * rows * padded_columns(k) + scales;
  }
  FloatRows(int64_t rows, int64_t k, void* memory)
      : rows(rows), tiles(ceil_div(k, tile_columns)),
        values(static_cast<DecodeActivation*>(memory)),
        scales(reinterpret_cast<float*>(values + rows * tiles * tile_columns)) {}

  // One row; where there is none, zeros.
  void fill(int64_t row, const Element* x, int64_t k) {
    int64_t columns = x ? k : 0;
    const float scale = rounds_activations && x ? activation_scale(x, k) : 1.0f;
    if constexpr (rounds_activations) scales[row] = scale;
    DecodeActivation* out = values + row * tile_columns;
    for (int64_t t = 0; t < tiles; ++t, x += tile_columns, columns -= tile_columns) {
      const TileOfRow tile(x, columns);
      for (int64_t c = 0; c < tile_columns; c += strip_rows)
        store_activations(tile.data() + c, scale, out + c);
      out += rows * tile_columns;
    }
  }
};

// Tiles after which sums are put away: where these are scaled then, no more than share scales.
constexpr int64_t tiles_of_span() {
  if (!multiplies_pairs) return 1;
  if (!defers_scales) return 4;
  return skips || group_columns % (2 * tile_columns) ? 1 : group_columns % (4 * tile_columns) ? 2 : 4;
}

// `strips` strips at once: several streams keep more reads of memory in flight than one.
template <int rows, int strips>
SC_INLINE void decode_group(const Strips& w, int64_t strip, int64_t last, const FloatRows& few,
                            float* out) {
  // Products that wait for one another: enough of them to hide an instruction's latency.
  constexpr int chains = rows * strips >= 4 ? 1 : 4 / (rows * strips);
  // Sums of a span of tiles, sums of eight of these, and of those: more exact than one long sum.
  constexpr int64_t span = tiles_of_span(), spans = 8 * span;
  const DecodeActivation* x = few.values;
  Sums sums[strips][rows][chains], parts_of_total[strips][rows], totals[strips][rows];
  Reader readers[strips];
  int64_t common = w.tiles;
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    for (auto& row : sums[s])
      for (auto& sum : row) sum = Sums{};
    for (int i = 0; i < rows; ++i) parts_of_total[s][i] = totals[s][i] = Sums{};
    readers[s].open_strip(w, strip + s, strip + s + strips, last);
    const int64_t present = w.present_tiles(strip + s);
    common = present < common ? present : common;
  }
  const auto add_vector = [&](int s, int v, int chain, const DecodeActivation* part) SC_INLINED {
    const Register codes = readers[s].next(v);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Sums& sum = sums[s][i][chain];
      sum = multiply_add(readers[s], sum, codes, part + i * tile_columns + first_activation(v));
    }
  };
  const auto add_span = [&](int s, int64_t t, bool last) SC_INLINED {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) {
        parts_of_total[s][i] += scale_tile(readers[s], sums[s][i][c]);
        sums[s][i][c] = Sums{};
      }
      if (t % spans != spans - 1 && !last) continue;
      totals[s][i] += parts_of_total[s][i];
      parts_of_total[s][i] = Sums{};
    }
  };
  for (int64_t t = 0; t < common; ++t) {
    const DecodeActivation* parts[strips];
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) {
      parts[s] = x + w.place(strip + s, t) * rows * tile_columns;
      readers[s].open_tile(w, strip + s, w.place(strip + s, t));
    }
    for (int v = 0; v < vectors; v += together)
#pragma GCC unroll 4
      for (int u = 0; u < together; ++u)
#pragma GCC unroll 8
        for (int s = 0; s < strips; ++s) add_vector(s, v + u, u % chains, parts[s]);
    if (t % span == span - 1)
#pragma GCC unroll 8
      for (int s = 0; s < strips; ++s) add_span(s, t, false);
  }
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    // Where tiles are skipped, some strips have more of them than others.
    for (int64_t t = common; skips && t < w.present_tiles(strip + s); ++t) {
      readers[s].open_tile(w, strip + s, w.place(strip + s, t));
      for (int v = 0; v < vectors; ++v)
        add_vector(s, v, 0, x + w.place(strip + s, t) * rows * tile_columns);
      if (t % span == span - 1) add_span(s, t, false);
    }
    if (w.present_tiles(strip + s)) add_span(s, 0, true);
    for (int i = 0; i < rows; ++i) {
      const auto sums_of_row = scale_sums(w, strip + s, totals[s][i]);
      store(out + (s * rows + i) * strip_rows,
            rounds_activations ? sums_of_row * few.scales[i] : sums_of_row);
    }
  }
}

}  // namespace
