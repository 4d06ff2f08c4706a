// Many rows of x and integer values in AVX2: a part of some strips is expanded to words once, and stays in
// the first-level cache while all of these rows are multiplied with it, some at a time.

namespace {

// Tiles of columns that are expanded together.
constexpr int64_t part_tiles = 16;

// A part of a strip.
struct Part {
  int64_t tiles = 0;
  int64_t places[part_tiles];
  const bfloat16* scales[part_tiles];
  Operands operands[part_tiles][vectors];

  // The strip's tiles from the t-th present one on, as far as they are in the same part of its columns.
  void expand(const Strips& w, int64_t strip, int64_t t, Reader& reader) {
    const int64_t present = w.present_tiles(strip);
    for (tiles = 0; t + tiles < present; ++tiles) {
      const int64_t place = w.place(strip, t + tiles);
      if (tiles > 0 && place / part_tiles != places[0] / part_tiles) break;
      reader.open_tile(w, strip, place);
      places[tiles] = place;
      scales[tiles] = reader.scales;
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) operands[tiles][v] = operand_of(reader, reader.next(v));
    }
  }
  // Whether sums are scaled behind a tile: at the end of a group of columns.
  SC_INLINE bool flushes(int64_t t) const {
    return t + 1 == tiles || places[t + 1] / flush_tiles != places[t] / flush_tiles;
  }
};

// sums [strip][row][strip_rows] (+)= parts of strips, in the same places, times some rows of x.
template <int rows, int strips>
SC_SHARED void multiply_parts(const Part* parts, const FewRows& x, bool begins, float* out) {
  IntegerSums<rows, strips> sums;
  for (int64_t t = 0; t < parts[0].tiles; ++t) {
    const int64_t place = parts[0].places[t];
#pragma GCC unroll 2
    for (int s = 0; s < strips; ++s) sums.excess[s].add_tile(x, place);
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 2
      for (int s = 0; s < strips; ++s) {
        const Operands& stored = parts[s].operands[t][v];
        const Operands w = {load_once(&stored.words), load_once(&stored.others)};
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
          Register& sum = sums.partial[s][i][0];
          sum = x.template add_products<rows>(sum, w, 0, i, place, v);
        }
      }
    if (!parts[0].flushes(t)) continue;
#pragma GCC unroll 2
    for (int s = 0; s < strips; ++s) sums.flush(s, parts[s].scales[t]);
  }
#pragma GCC unroll 2
  for (int s = 0; s < strips; ++s)
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i, out += strip_rows)
      store(out, begins ? sums.total[s][i] : load<Floats<strip_rows>>(out) + sums.total[s][i]);
}

// Where everything is in the workspace: rows of x, some at a time, then the sums of each thread.
struct Workspace {
  int64_t rows, group_bytes;

  Workspace(const Strips& w, int64_t m)
      : group_bytes(ceil_div(FewRows::bytes(rows_together, w.k), 64) * 64) {
    const int64_t fitting = panel_bytes / 2 / group_bytes, all = ceil_div(m, rows_together);
    rows = (fitting < 1 ? 1 : fitting < all ? fitting : all) * rows_together;
  }
  int64_t x_bytes() const { return rows / rows_together * group_bytes; }
  int64_t sums_bytes() const { return rows * strips_together * strip_rows * sizeof(float); }
};

// Rows of x that are there, from m0 on.
struct Panel {
  const SCLinearArguments& a;
  const Strips& w;
  const Workspace& space;
  char* x;
  float* sums;  // [rows_together rows][strip][row][strip_rows]
  int64_t m0, rows;

  FewRows group(int64_t row) const {
    return FewRows(rows_together, w.k, x + row / rows_together * space.group_bytes);
  }
  void fill(Range own) const {
    for (int64_t i = own.begin; i < own.end; ++i) {
      const Element* from = static_cast<const Element*>(a.x) + (m0 + i) * w.k;
      group(i).fill(i % rows_together, i < rows ? from : nullptr, w.k);
    }
  }
  // Strips that have the same tiles, and before which of them the thread ends.
  template <int strips>
  void multiply(int64_t strip, int64_t end) const {
    constexpr int64_t step = strips * strip_rows;  // sums of a row
    Reader readers[strips];
    Part parts[strips];
    for (int s = 0; s < strips; ++s)
      readers[s].open_strip(w, strip + s, strip + s + strips, end);
    int64_t t = 0;
    do {  // once where no tile is there: then sums are zero
      for (int s = 0; s < strips; ++s) parts[s].expand(w, strip + s, t, readers[s]);
      for (int64_t i = 0; i < rows; i += rows_together)
        multiply_parts<rows_together, strips>(parts, group(i), t == 0, sums + i * step);
      t += parts[0].tiles;
    } while (t < w.present_tiles(strip));
    for (int64_t i = 0; i < rows; i += rows_together) {
      const int64_t there = rows - i < rows_together ? rows - i : rows_together;
      const float* scales = group(i).scales;
      float* from = sums + i * step;
      for (int s = 0; s < strips; ++s, from += rows_together * strip_rows) {
        for (int64_t j = 0; j < there; ++j) {
          float* row = from + j * strip_rows;
          store(row, load<Floats<strip_rows>>(row) * scales[j]);
        }
        finish_strip(a, w, strip + s, m0 + i, there, from);
      }
    }
  }
};

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  const int64_t decode = m <= decode_rows ? decode_workspace(w) : 0;
  const Workspace space(w, m);
  const int64_t x_bytes = space.x_bytes() * Share::copies(m, space.x_bytes(), threads);
  const int64_t batch = x_bytes + threads * space.sums_bytes();
  return batch > decode ? batch : decode;
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Workspace space(w, a.m);
  parallel(useful_threads(a, header_of(a.weight).slots * a.m), [&](int64_t thread, int64_t of) {
    const Share part(w, a.m, space.x_bytes(), thread, of);
    const int64_t packers = part.packers(of);
    char* x = static_cast<char*>(a.workspace) + of / packers * space.x_bytes();
    float* sums = reinterpret_cast<float*>(x + thread * space.sums_bytes());
    x = static_cast<char*>(a.workspace) + (part.by_rows ? thread * space.x_bytes() : 0);
    for (int64_t m0 = part.rows.begin; m0 < part.rows.end; m0 += space.rows) {
      const int64_t rows = m0 + space.rows < part.rows.end ? space.rows : part.rows.end - m0;
      const int64_t padded = ceil_div(rows, rows_together) * rows_together;
      const Panel panel{a, w, space, x, sums, m0, rows};
      panel.fill(share(padded, thread % packers, packers));
      wait_for_threads(packers);
      for (int64_t strip = part.strips.begin; strip < part.strips.end;) {
        const bool both = strip + 1 < part.strips.end && w.has_same_tiles(strip, strip + 1);
        if (both) {
          panel.multiply<strips_together>(strip, part.strips.end);
        } else {
          panel.multiply<1>(strip, part.strips.end);
        }
        strip += both ? strips_together : 1;
      }
      wait_for_threads(packers);
    }
  });
}
