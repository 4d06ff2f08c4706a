// Many rows of x: tiles of W are expanded into a scratch that stays in the innermost caches, and
// multiplied there with packed tiles of x as if they were dense.
//
// Both are packed so that every multiplication runs along consecutive memory:
//   x      [tile of 16 rows][tile of columns][16][tile_columns]
//   W      [strip][tile][vectors][16][depth], which is [tile_columns][16] with pairs side by side
//   sums   [tile of 16 rows][strip][16 rows of x][16 rows of W], float32

namespace {

struct Panel {
  int64_t m0, rows;       // of x
  const Activation* x;    // packed
  int64_t x_stride;       // from one tile of rows to the next
  int64_t x_tiles() const { return ceil_div(rows, x_rows); }
};

// Up to `group_strips` strips, which share the tiles of x while these are in the innermost cache.
inline void multiply_group(const SCLinearArguments& a, const Strips& w, int64_t strip, int strips,
                           const Panel& panel, Operand* scratch, float* sums) {
  const int64_t tiles = w.present_tiles(strip);
  std::memset(sums, 0, sizeof(float) * panel.x_tiles() * group_strips * sums_tile);
  Reader readers[group_strips];
  for (int s = 0; s < strips; ++s) readers[s] = Reader{w.stream + w.offsets[strip + s]};
  for (int64_t t = 0; t < tiles; t += chunk_tiles) {
    const int64_t count = t + chunk_tiles < tiles ? chunk_tiles : tiles - t;
    Chunk chunk{{}, skips ? w.tile_places + w.first_tiles[strip] : nullptr, t, count};
    for (int s = 0; s < strips; ++s) chunk.strips[s] = scratch + s * scratch_tiles(w) * w_tile;
    if constexpr (!masked && multiplies_pairs) {
      for (int s = 0; s < strips; ++s) {
        chunk.strips[s] = reinterpret_cast<const Operand*>(readers[s].at);
        readers[s].at += count * vectors * vector_bytes;
      }
    } else {
      // Strip by strip would be one stream at a time; memory answers several faster.
      for (int64_t i = 0; i < count; ++i)
        for (int s = 0; s < strips; ++s)
          expand_tile(readers[s], scratch + (s * scratch_tiles(w) + i) * w_tile);
    }
    multiply_chunk(chunk, strips, panel.x, panel.x_stride, panel.x_tiles(), sums);
  }
  for (int64_t i = 0; i < panel.x_tiles(); ++i) {
    const int64_t rest = panel.rows - i * x_rows;
    for (int s = 0; s < strips; ++s) {
      const int64_t first = (strip + s) * strip_rows, last = first + strip_rows;
      finish(a, w.n, {first, last < w.n ? last : w.n}, panel.m0 + i * x_rows,
             rest < x_rows ? rest : x_rows, sums + (i * group_strips + s) * sums_tile);
    }
  }
}

// Tiles [first, last) of columns of the panel's x, packed; what x has not is zero.
inline void pack_x(const SCLinearArguments& a, int64_t k, const Panel& panel, Range steps,
                   Activation* out) {
  const int64_t column_tiles = ceil_div(k, tile_columns);
  for (int64_t step = steps.begin; step < steps.end; ++step) {
    const int64_t tile = step / column_tiles, c0 = step % column_tiles * tile_columns;
    Activation* to = out + step * x_tile;
    const int64_t columns = c0 + tile_columns < k ? tile_columns : k - c0;
    for (int64_t i = 0; i < x_rows; ++i, to += tile_columns) {
      const int64_t row = tile * x_rows + i;
      if (row >= panel.rows) {
        std::memset(to, 0, sizeof(Activation) * tile_columns);
        continue;
      }
      const Element* from = static_cast<const Element*>(a.x) + (panel.m0 + row) * k + c0;
      if (columns == tile_columns) {
        for (int64_t c = 0; c < tile_columns; ++c) to[c] = convert<Activation>(from[c]);
      } else {
        for (int64_t c = 0; c < tile_columns; ++c)
          to[c] = c < columns ? convert<Activation>(from[c]) : Activation{};
      }
    }
  }
}

// Rows of x packed at once: as many as stay in the cache beside the scratch.
inline int64_t panel_rows(int64_t m, int64_t k) {
  const int64_t tiles = k ? ceil_div(k, tile_columns) : 1;
  const int64_t fitting = panel_bytes / (sizeof(Activation) * tiles * tile_columns);
  const int64_t rows = fitting < 2 * x_rows ? 2 * x_rows : fitting / x_rows * x_rows;
  const int64_t most = rows < 32 * x_rows ? rows : 32 * x_rows;
  const int64_t all = ceil_div(m, x_rows) * x_rows;
  // Panels of equal size rather than a small last one.
  return ceil_div(ceil_div(all, ceil_div(all, most)), x_rows) * x_rows;
}

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  const int64_t decode = m <= decode_rows ? decode_workspace(w) : 0;
  const int64_t rows = panel_rows(m, w.k);
  const int64_t scratch = sizeof(Operand) * group_strips * scratch_tiles(w) * w_tile;
  const int64_t sums = sizeof(float) * rows * group_strips * strip_rows;
  const int64_t batch = sizeof(Activation) * rows * w.tiles * tile_columns;
  const int64_t needed = batch + threads * (scratch + sums);
  return needed > decode ? needed : decode;
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const int64_t rows = panel_rows(a.m, w.k);
  Activation* x = static_cast<Activation*>(a.workspace);
  char* own = reinterpret_cast<char*>(x + rows * w.tiles * tile_columns);
  const int64_t scratch_bytes = sizeof(Operand) * group_strips * scratch_tiles(w) * w_tile;
  const int64_t sums_bytes = sizeof(float) * rows * group_strips * strip_rows;
  const int64_t groups = ceil_div(w.strips, group_strips);
  const int64_t threads = useful_threads(a, header_of(a.weight).slots * a.m);
  parallel(threads, [&](int64_t thread, int64_t of) {
    char* mine = own + thread * (scratch_bytes + sums_bytes);
    Operand* scratch = reinterpret_cast<Operand*>(mine);
    float* sums = reinterpret_cast<float*>(mine + scratch_bytes);
    const TileRegisters registers;
    for (int64_t m0 = 0; m0 < a.m; m0 += rows) {
      const Panel panel{m0, m0 + rows < a.m ? rows : a.m - m0, x, w.tiles * x_tile};
      pack_x(a, w.k, panel, share(panel.x_tiles() * w.tiles, thread, of), x);
      wait_for_threads(of);
      const Range part = share(groups, thread, of);
      for (int64_t group = part.begin; group < part.end; ++group) {
        const int64_t strip = group * group_strips, rest = w.strips - strip;
        multiply_group(a, w, strip, rest < group_strips ? rest : group_strips, panel, scratch,
                       sums);
      }
      wait_for_threads(of);
    }
  });
}
