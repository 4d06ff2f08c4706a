// Loops of the template `lists` for many rows of x: each kept value times a few vectors of them,
// which stay in the innermost cache for a block of columns, as do the sums of a block's rows.

namespace {

constexpr int most_vectors = 4;
constexpr int64_t tile_lanes = most_vectors * native_floats;  // rows of x in a tile
constexpr int64_t panel_rows = 8 * tile_lanes;                // rows of x in the workspace at once

// All blocks of some rows times a tile of x [columns][width], as `sums` [block_rows][width].
template <int vectors>
inline void multiply_blocks(const Lists& w, int64_t row_block, const float* x, float* sums) {
  constexpr int64_t width = vectors * native_floats;
  std::memset(sums, 0, sizeof(float) * block_rows * width);
  for (int64_t b = 0; b < w.column_blocks; ++b) {
    const Block block = w.block(row_block, b);
    const float* part = x + b * w.block_width * width;
    block.visit([&](int64_t row, const uint8_t* columns, const char* values, int64_t count)
                    SC_INLINED {
      const int64_t bytes = count * static_cast<int64_t>(sizeof(Element));
      for (int64_t at = 0; at < bytes; at += 64) prefetch(values + at);
      multiply_list<vectors, Element>(columns, values, count, part, sums + row * width);
    });
  }
}

// Call run(vectors) with the fewest that hold `lanes` rows of x.
template <class Run>
SC_INLINE void with_vectors(int64_t lanes, Run&& run) {
  if (lanes <= native_floats) {
    run(lane<1>());
  } else if (lanes <= 2 * native_floats) {
    run(lane<2>());
  } else {
    run(lane<most_vectors>());
  }
}

// Where everything is in the workspace: x, then what each thread has for itself.
struct Workspace {
  int64_t columns, tiles, sums;

  Workspace(int64_t k, int64_t m)
      : columns(padded_columns(k)),
        tiles(ceil_div(m < panel_rows ? m : panel_rows, tile_lanes)),
        sums(block_rows * tile_lanes) {}
  int64_t x() const { return tiles * columns * tile_lanes; }
};

// At most panel_rows rows of x: transpose them, then share blocks of rows x tiles of x.
inline void multiply_panel(const SCLinearArguments& a, const Lists& w, Range panel,
                           const Workspace& space, int64_t threads) {
  float* x = static_cast<float*>(a.workspace);
  const int64_t tiles = ceil_div(panel.end - panel.begin, tile_lanes);
  const int64_t steps = w.column_blocks;
  const float no_scales[tile_lanes] = {};
  const auto lanes_of = [&](int64_t tile) {
    const int64_t rest = panel.end - panel.begin - tile * tile_lanes;
    return rest < tile_lanes ? rest : tile_lanes;
  };
  parallel(threads, [&](int64_t thread, int64_t of) {
    const Range own = share(tiles * steps, thread, of);
    for (int64_t step = own.begin; step < own.end; ++step) {
      const int64_t tile = step / steps, first = step % steps * w.block_width;
      with_vectors(lanes_of(tile), [&](auto vectors) {
        transpose<vectors * native_floats>(a, w.k, panel.begin + tile * tile_lanes, lanes_of(tile),
                                           {first, first + w.block_width}, no_scales,
                                           x + tile * space.columns * tile_lanes);
      });
    }
    wait_for_threads(of);
    float* sums = x + space.x() + thread * space.sums;
    // A tile of x stays in the cache for all rows of W: it is larger than a row of blocks.
    const Range items = share(tiles * w.row_blocks, thread, of);
    for (int64_t item = items.begin; item < items.end; ++item) {
      const int64_t tile = item / w.row_blocks, row_block = item % w.row_blocks;
      const int64_t lanes = lanes_of(tile), m0 = panel.begin + tile * tile_lanes;
      const int64_t last = (row_block + 1) * block_rows;
      const Range rows = {row_block * block_rows, last < w.n ? last : w.n};
      with_vectors(lanes, [&](auto vectors) {
        multiply_blocks<vectors>(w, row_block, x + tile * space.columns * tile_lanes, sums);
        finish_turned(a, w.n, rows, m0, lanes, vectors * native_floats, sums);
      });
    }
  });
}

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Workspace space(header_of(weight).k, m);
  return sizeof(float) * (space.x() + threads * space.sums);
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Lists w(a.weight);
  const Workspace space(w.k, a.m);
  const int64_t threads = useful_threads(a, header_of(a.weight).slots * a.m);
  for (int64_t m0 = 0; m0 < a.m; m0 += panel_rows)
    multiply_panel(a, w, {m0, m0 + panel_rows < a.m ? m0 + panel_rows : a.m}, space, threads);
}
