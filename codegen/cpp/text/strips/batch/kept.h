// Many rows of x times what tiles of W keep, and nothing else.
//   sums     [tile of rows][row of W][rows of the tile]

namespace {

// Lists go on from tile to tile, and are not made by every thread.
constexpr int64_t kept_at_once = lists ? 1 : tiles_at_once;
constexpr bool shares_rows = !lists;

// Scales of rows of x, from m0 on.
inline void scale_rows(const SCLinearArguments& a, int64_t k, int64_t m0, Range rows, float* scales) {
  const Element* x = static_cast<const Element*>(a.x) + m0 * k;
  for (int64_t i = rows.begin; i < rows.end; ++i) scales[i] = batch_scale(x + i * k, k);
}

// Tiles of the panel's x x 32 columns each, turned.
inline void pack_x(const SCLinearArguments& a, int64_t k, int64_t m0, int64_t rows, int64_t thread,
                   int64_t of, const float* scales, Word* x) {
  const int64_t columns = padded_columns(k), squares = columns / tile_columns;
  const Range part = share(padded_rows(rows) / lanes * squares, thread, of);
  for (int64_t step = part.begin; step < part.end; ++step) {
    const int64_t row = step / squares * lanes, c0 = step % squares * tile_columns;
    const Range tile = tile_of(row, rows);
    const int64_t width = tile.end - tile.begin;
    pack_square(a, k, m0 + row, rows - row, c0, width, scales + row,
                x + (tile.begin * columns + c0 * width) / columns_of_word + row - tile.begin);
  }
}

constexpr int64_t choices_bytes = tiles_at_once * tile_choices_bytes;

// Where everything is in the workspace: x and its scales, then what each thread has for itself.
struct Workspace {
  int64_t rows, strips, x_bytes, scales_bytes, kept_bytes, sums_bytes;

  Workspace(const Strips& w, int64_t m)
      : rows(m < block_rows ? m : block_rows),
        strips(w.strips < block_strips ? w.strips : block_strips),
        x_bytes(sizeof(Word) * padded_rows(rows) * padded_columns(w.k) / columns_of_word),
        scales_bytes(scales_x ? sizeof(float) * rows : 0),
        kept_bytes(stream_is_kept ? 0 : sizeof(Kept) * kept_at_once * strips),
        sums_bytes(sizeof(float) * strips * strip_rows * padded_rows(rows)) {}
  Room room() const {
    return {rows, x_bytes + scales_bytes, choices_bytes + kept_bytes + sums_bytes, shares_rows};
  }
};

// Strips whose sums are kept at once, times all rows of x of a panel.
struct Block {
  const SCLinearArguments& a;
  const Strips& w;
  Range strips;
  const Word* x;
  const float* x_scales;  // of its rows, where it is rounded
  int64_t m0, rows;
  char* choices;
  Kept* expanded;  // [strip][kept_at_once], where streams have something else
  float* sums;

  // Strips from `end` on are another thread's.
  void multiply(int64_t end) const {
    Reader readers[block_strips];
    const int64_t count = strips.end - strips.begin;
    for (int64_t s = 0; s < count; ++s) {
      const int64_t strip = strips.begin + s;
      readers[s].open_strip(w, strip, strip + count, end);
    }
    int64_t t = 0;
    do {  // once where there are no columns: then sums are zero
      const int64_t tiles = t + tiles_at_once < w.tiles ? tiles_at_once : w.tiles - t;
      const Kept* kept[block_strips];
      for (int64_t s = 0; s < count; ++s) kept[s] = read_tiles(readers[s], s, t, tiles);
      multiply_step(t, tiles, count, kept, readers);
      t += tiles_at_once;
    } while (t < w.tiles);
    finish();
  }

 private:
  // The tiles of a strip, and the reader behind them.
  SC_INLINE const Kept* read_tiles(Reader& from, int64_t s, int64_t t, int64_t tiles) const {
    if constexpr (stream_is_kept) {
      const char* at = from.at;
      from.at += tiles * tile_bytes;
      return reinterpret_cast<const Kept*>(at);
    }
    Reader reader = from;  // a copy: for all a compiler knows, what is stored may change the reader
    Kept* to = expanded + s * kept_at_once;
    for (int64_t i = 0; i < tiles; ++i) {
      reader.open_tile(w, strips.begin + s, t + i);
      expand_kept(reader, to, i);
    }
    from = reader;
    return to;
  }
  void multiply_step(int64_t t, int64_t tiles, int64_t count, const Kept* const* kept,
                     const Reader* readers) const {
    for_each_tile(rows, [&](int64_t first, int64_t width) {
      const int64_t at = first * padded_columns(w.k) + t * tile_columns * width;
      float* to = sums + first * count * strip_rows;
      with_width(width, [&](auto vectors_of_x) {
        const char* from =
            lay_out_choices<vectors_of_x>(x + at / columns_of_word, tiles * tile_groups, choices);
        for (int64_t s = 0; s < count; ++s, to += strip_rows * width) {
          // Memory has the time of this step for the next one's tiles.
          for (int64_t i = 0; first == 0 && i < tiles_at_once * tile_bytes; i += 64)
            __builtin_prefetch(readers[s].at + i);
          multiply_strip<vectors_of_x>(kept[s], tiles, from, t == 0, to);
        }
      });
    });
  }
  void finish() const {
    for_each_tile(rows, [&](int64_t first, int64_t width) {
      const float* from = sums + first * (strips.end - strips.begin) * strip_rows;
      const int64_t in_tile = rows - first < width ? rows - first : width;
      for (int64_t s = strips.begin; s < strips.end; ++s, from += strip_rows * width) {
        const int64_t row = s * strip_rows, last = row + strip_rows;
        finish_turned(a, w.n, {row, last < w.n ? last : w.n}, m0 + first, in_tile, width, from,
                      [&](int64_t i, Values sums) SC_INLINED {
                        const Values scaled = scale_sums(w, s, sums);
                        return scales_x ? scaled * x_scales[first + i] : scaled;
                      });
      }
    });
  }
};

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  return workspace_bytes(w, m, threads, Workspace(w, m).room());
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Workspace space(w, a.m);
  for_each_panel(a, w, space.room(), [&](const Share& part, int64_t m0, int64_t rows) {
    Word* x = reinterpret_cast<Word*>(part.packed);
    float* x_scales = reinterpret_cast<float*>(part.packed + space.x_bytes);
    char* choices = part.own;
    Kept* expanded = reinterpret_cast<Kept*>(choices + choices_bytes);
    float* sums = reinterpret_cast<float*>(choices + choices_bytes + space.kept_bytes);
    if constexpr (scales_x) {
      scale_rows(a, w.k, m0, share(rows, part.packer, part.packers), x_scales);
      wait_for_threads(part.packers);
    }
    pack_x(a, w.k, m0, rows, part.packer, part.packers, x_scales, x);
    wait_for_threads(part.packers);
    const int64_t strips = part.strips.end - part.strips.begin;
    const int64_t blocks = ceil_div(strips, block_strips);
    for (int64_t b = 0; b < blocks; ++b) {
      const Range own = share(strips, b, blocks);
      Block{a, w, {part.strips.begin + own.begin, part.strips.begin + own.end}, x, x_scales, m0, rows,
            choices, expanded, sums}
          .multiply(part.strips.end);
    }
  });
}
