// Few rows of x: every vector of W is expanded into a register and multiplied at once.

namespace {

// Some CPUs multiply pairs of bfloat16 no faster than they multiply floats twice.
using DecodeActivation = std::conditional_t<decode_pairs != 0, Activation, float>;

// Vectors of a strip between two tests of the loop: longer code runs slower, and builds slowly.
constexpr int together = 4;
static_assert(vectors % together == 0);

// `strips` strips at once: several streams keep more reads of memory in flight than one.
template <int rows, int strips>
SC_INLINE void decode_group(const Strips& w, int64_t strip, int64_t last, const DecodeActivation* x,
                            float* out) {
  // Products that wait for one another: enough of them to hide an instruction's latency.
  constexpr int chains = rows * strips >= 4 ? 1 : 4 / (rows * strips);
  // Sums of a span of tiles, sums of eight of these, and of those: more exact than one long sum.
  constexpr int64_t span = multiplies_pairs ? 4 : 1, spans = 8 * span;
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
    const __m512i codes = readers[s].next(v);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Sums& sum = sums[s][i][chain];
      sum = multiply_add(readers[s], sum, codes, part + i * tile_columns + (paired ? 0 : v * depth));
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
    for (int i = 0; i < rows; ++i)
      store(out + (s * rows + i) * strip_rows, scale_sums(w, strip + s, totals[s][i]));
  }
}

template <int rows, int strips>
inline int64_t decode_groups(const SCLinearArguments& a, const Strips& w, const DecodeActivation* x,
                             Range part) {
  int64_t strip = part.begin;
  for (; strip + strips <= part.end; strip += strips) {
    float sums[strips * rows * strip_rows];
    decode_group<rows, strips>(w, strip, part.end, x, sums);
    for (int s = 0; s < strips; ++s) {
      const int64_t first = (strip + s) * strip_rows, last = first + strip_rows;
      finish(a, w.n, {first, last < w.n ? last : w.n}, 0, a.m, sums + s * rows * strip_rows);
    }
  }
  return strip;
}

template <int rows>
inline void decode_strips(const SCLinearArguments& a, const Strips& w, const DecodeActivation* x,
                          Range part) {
  constexpr int strips = rows * decode_streams <= 16 ? decode_streams : 16 / rows;
  part.begin = decode_groups<rows, strips>(a, w, x, part);
  decode_groups<rows, 1>(a, w, x, part);
}

// A row of x, and zeros where it has no columns, each tile `stride` behind the one before: those of
// all rows stand together, so that one register tells where they are.
inline void spread_row(const Element* x, int64_t columns, int64_t tiles, int64_t stride,
                       DecodeActivation* out) {
  for (int64_t t = 0; t < tiles; ++t, x += tile_columns, columns -= tile_columns, out += stride) {
    const TileOfRow tile(x, columns);
    for (int64_t c = 0; c < tile_columns; ++c) out[c] = convert<DecodeActivation>(tile.data()[c]);
  }
}

inline int64_t decode_workspace(const Strips& w) {
  return sizeof(DecodeActivation) * decode_rows * padded_columns(w.k);
}

}  // namespace

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const int64_t rows = a.m <= 2 ? a.m : a.m <= 4 ? 4 : 8;
  DecodeActivation* x = static_cast<DecodeActivation*>(a.workspace);
  for (int64_t i = 0; i < rows; ++i) {
    const Element* from = static_cast<const Element*>(a.x) + i * w.k;
    const int64_t columns = i < a.m ? w.k : 0;
    spread_row(from, columns, w.tiles, rows * tile_columns, x + i * tile_columns);
  }
  parallel(useful_threads(a, header_of(a.weight).slots * rows), [&](int64_t thread, int64_t of) {
    const Range part = share(w.strips, thread, of);
    if (rows == 1) decode_strips<1>(a, w, x, part);
    if (rows == 2) decode_strips<2>(a, w, x, part);
    if (rows == 4) decode_strips<4>(a, w, x, part);
    if (rows == 8) decode_strips<8>(a, w, x, part);
  });
}
