// Loops of the generic template. Before it come `Element`, `Weight`, the fragments, `epilogue`
// and the schedule's constants. Two ways to multiply:
//
// - decode, m <= decode_rows: one row of W at a time against rows of x, several slots in one
//   vector; for more than one row of x only where such a vector of x is cheap;
// - batch: x in tiles [columns][lanes], each kept value times one or more vectors of lanes,
//   running over the columns in chunks that stay in the innermost cache.

namespace {

constexpr int64_t decode_rows = vectors_are_cheap ? 8 : 1;
constexpr int64_t panel_rows = 8 * batch_lanes;              // rows of x in the workspace at once
constexpr int64_t slack = column_padding + 4 * native_floats;  // columns of zeros behind x

// Decode: one row of W times `rows` rows of x, which are floats `stride` apart.
template <int rows>
SC_INLINE void dot_row(const Weight& w, int64_t row, const float* x, int64_t stride, float* total) {
  constexpr int chains = rows >= 8 ? 1 : rows >= 4 ? 2 : 4;  // sums in flight a row of x
  float single[rows][4] = {};
  const auto visit = [&](auto chain, int64_t column, int64_t slot) SC_INLINED {
    const float value = decode(w, row, column, slot);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) single[i][chain % 4] += value * x[i * stride + column];
  };
  if constexpr (slots_per_vector > 1) {
    constexpr int width = slots_per_vector;
    Floats<width> sums[rows][chains] = {};
    const auto visit_vector = [&](auto chain, int64_t slot, auto&& activations,
                                  auto&& columns) SC_INLINED {
      const Floats<width> values = decode_vector<width>(w, row, slot, columns);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) sums[i][chain % chains] += values * activations(x + i * stride);
    };
    visit_row_vectors(w, row, visit_vector, visit);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
      for (int c = 1; c < chains; ++c) sums[i][0] += sums[i][c];
      total[i] = sum<width>(sums[i][0]);
    }
  } else {
    int64_t cursor = first_slot(w, row);
    visit_row(w, row, cursor, 0, w.k, visit);
    for (int i = 0; i < rows; ++i) total[i] = 0;
  }
  for (int i = 0; i < rows; ++i)
    total[i] += (single[i][0] + single[i][1]) + (single[i][2] + single[i][3]);
}

template <int rows>
inline void decode_tiles(const SCLinearArguments& a, const Weight& w, const float* x,
                         int64_t stride, Range tiles) {
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const int64_t first = tile * row_tile;
    const Range part = {first, first + row_tile < w.n ? first + row_tile : w.n};
    float sums[rows * row_tile];
    for (int64_t row = part.begin; row < part.end; ++row) {
      float total[rows];
      dot_row<rows>(w, row, x, stride, total);
      for (int i = 0; i < rows; ++i) sums[i * row_tile + row - first] = total[i];
    }
    finish(a, w.n, part, 0, a.m, sums);
  }
}

// x as floats, `rows` rows `stride` apart, everything that x has not zero.
inline void widen(const SCLinearArguments& a, int64_t k, int64_t rows, int64_t stride, float* out) {
  std::memset(out, 0, sizeof(float) * rows * stride);
  for (int64_t i = 0; i < a.m; ++i) {
    const Element* x = static_cast<const Element*>(a.x) + i * k;
    const float scale = activation_scale(x, k);
    for (int64_t c = 0; c < k; ++c) out[i * stride + c] = round_activation(to_float(x[c]), scale);
  }
}

// Part of a row of W times a tile of x, added to `sums` [width].
template <int width>
SC_INLINE void multiply_row(const Weight& w, int64_t row, int64_t& cursor, Range columns,
                            const float* x, float* sums) {
  constexpr int vector = width < native_floats ? width : native_floats;
  constexpr int vectors = width / vector;
  constexpr int chains = vectors >= 8 ? 1 : vectors >= 4 ? 2 : 4;
  Floats<vector> total[chains][vectors] = {};
  visit_row(w, row, cursor, columns.begin, columns.end,
            [&](auto chain, int64_t column, int64_t slot) SC_INLINED {
              const float value = decode(w, row, column, slot);
#pragma GCC unroll 16
              for (int v = 0; v < vectors; ++v)
                total[chain % chains][v] +=
                    value * load<Floats<vector>>(x + column * width + v * vector);
            });
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 8
    for (int c = 1; c < chains; ++c) total[0][v] += total[c][v];
    store(sums + v * vector, load<Floats<vector>>(sums + v * vector) + total[0][v]);
  }
}

template <int width>
inline void multiply_rows(const SCLinearArguments& a, const Weight& w, Range rows, int64_t m0,
                          int64_t lanes, const float* x) {
  constexpr int64_t chunk = batch_columns * batch_lanes / width;
  alignas(64) float sums[batch_rows * width + native_floats] = {};
  int64_t cursors[batch_rows];
  for (int64_t row = rows.begin; row < rows.end; ++row)
    cursors[row - rows.begin] = first_slot(w, row);
  for (int64_t begin = 0; begin < w.k; begin += chunk) {
    const Range columns = {begin, begin + chunk < w.k ? begin + chunk : w.k};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t r = row - rows.begin;
      multiply_row<width>(w, row, cursors[r], columns, x, sums + r * width);
    }
  }
  finish_turned(a, w.n, rows, m0, lanes, width, sums);
}

// Narrower tiles for the rest of m: call run(width) with the narrowest that holds `lanes`.
template <class Run>
SC_INLINE void with_width(int64_t lanes, Run&& run) {
  if (lanes <= batch_lanes / 8) {
    run(lane<batch_lanes / 8>());
  } else if (lanes <= batch_lanes / 4) {
    run(lane<batch_lanes / 4>());
  } else if (lanes <= batch_lanes / 2) {
    run(lane<batch_lanes / 2>());
  } else {
    run(lane<batch_lanes>());
  }
}

// At most panel_rows rows of x, from m0: transpose them, then share rows of W x tiles of m.
inline void multiply_panel(const SCLinearArguments& a, const Weight& w, Range panel,
                           int64_t threads) {
  const int64_t columns = w.k + slack;
  const int64_t tiles = ceil_div(panel.end - panel.begin, batch_lanes);
  const int64_t column_steps = ceil_div(columns, 64);
  const int64_t row_steps = ceil_div(w.n, row_tile);
  float* x = static_cast<float*>(a.workspace);
  float* scales = x + tiles * batch_lanes * columns;  // one for every row of the panel
  const auto lanes_of = [&](int64_t tile) {
    const int64_t rest = panel.end - panel.begin - tile * batch_lanes;
    return rest < batch_lanes ? rest : batch_lanes;
  };
  parallel(threads, [&](int64_t thread, int64_t of) {
    if constexpr (rounds_activations) {
      const Range own = share(panel.end - panel.begin, thread, of);
      for (int64_t i = own.begin; i < own.end; ++i)
        scales[i] = activation_scale(
            static_cast<const Element*>(a.x) + (panel.begin + i) * w.k, w.k);
      wait_for_threads(of);
    }
    const Range steps = share(tiles * column_steps, thread, of);
    for (int64_t step = steps.begin; step < steps.end; ++step) {
      const int64_t tile = step / column_steps, first = step % column_steps * 64;
      const Range part = {first, first + 64 < columns ? first + 64 : columns};
      with_width(lanes_of(tile), [&](auto width) {
        transpose<width>(a, w.k, panel.begin + tile * batch_lanes, lanes_of(tile), part,
                         scales + tile * batch_lanes, x + tile * batch_lanes * columns);
      });
    }
    wait_for_threads(of);
    const Range items = share(tiles * row_steps, thread, of);
    for (int64_t item = items.begin; item < items.end;) {
      const int64_t tile = item / row_steps, first = item % row_steps;
      int64_t count = batch_rows / row_tile;
      if (count > row_steps - first) count = row_steps - first;
      if (count > items.end - item) count = items.end - item;
      const int64_t last = (first + count) * row_tile;
      const Range rows = {first * row_tile, last < w.n ? last : w.n};
      with_width(lanes_of(tile), [&](auto width) {
        multiply_rows<width>(a, w, rows, panel.begin + tile * batch_lanes, lanes_of(tile),
                             x + tile * batch_lanes * columns);
      });
      item += count;
    }
  });
}

inline int64_t decode_stride(int64_t k) { return ceil_div(k + slack, 16) * 16; }

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t) {
  const int64_t k = header_of(weight).k;
  const int64_t decode = m <= decode_rows ? decode_rows * decode_stride(k) : 0;
  // Few rows may be asked of the batch function as well.
  const int64_t rows = ceil_div(m < panel_rows ? m : panel_rows, batch_lanes) * batch_lanes;
  const int64_t batch = rows * (k + slack + 1);
  return sizeof(float) * (batch > decode ? batch : decode);
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Weight w(a.weight);
  const int64_t threads = useful_threads(a, w.slots * a.m);
  for (int64_t m0 = 0; m0 < a.m; m0 += panel_rows)
    multiply_panel(a, w, {m0, m0 + panel_rows < a.m ? m0 + panel_rows : a.m}, threads);
}

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  if (a.m > decode_rows) return sc_linear_batch(arguments);
  const Weight w(a.weight);
  const int64_t rows = a.m <= 2 ? a.m : a.m <= 4 ? 4 : 8, stride = decode_stride(w.k);
  float* x = static_cast<float*>(a.workspace);
  widen(a, w.k, rows, stride, x);
  const int64_t tiles = ceil_div(w.n, row_tile);
  parallel_stage(a, w.slots * rows, [&](int64_t thread, int64_t threads) {
    const Range part = share(tiles, thread, threads);
    if (rows == 1) decode_tiles<1>(a, w, x, stride, part);
    if constexpr (decode_rows > 1) {
      if (rows == 2) decode_tiles<2>(a, w, x, stride, part);
      if (rows == 4) decode_tiles<4>(a, w, x, stride, part);
      if (rows == 8) decode_tiles<8>(a, w, x, stride, part);
    }
  });
}

namespace {

template <class Out>
void unpack(const Weight& w, int64_t first, int64_t rows, Out* dense, int64_t threads) {
  std::memset(dense, 0, sizeof(Out) * rows * w.k);
  parallel(threads, [&](int64_t thread, int64_t of) {
    const Range part = share(rows, thread, of);
    for (int64_t row = first + part.begin; row < first + part.end; ++row) {
      Out* out = dense + (row - first) * w.k;
      int64_t cursor = first_slot(w, row);
      visit_row(w, row, cursor, 0, w.k, [&](auto, int64_t column, int64_t slot) SC_INLINED {
        if (column < w.k) out[column] = from_float<Out>(decode(w, row, column, slot));
      });
    }
  });
}

}  // namespace

// Rows of the dense weight, bit for bit.
SC_EXPORT void sc_unpack(const void* layout, int64_t first, int64_t rows, int64_t in_float32,
                         void* dense, int64_t threads) {
  const Weight w(layout);
  if (in_float32) return unpack(w, first, rows, static_cast<float*>(dense), threads);
  unpack(w, first, rows, static_cast<Element*>(dense), threads);
}
