// Many rows of x and integer values in AVX2: a part of some strips is expanded to words once, and stays in
// the first-level cache while all of these rows are multiplied with it, some at a time.

namespace {

static_assert(strips_together == 2 && planes == 1);

// Tiles of columns that are expanded together.
constexpr int64_t part_tiles = 16;

// A part of a strip.
struct Part {
  int64_t tiles = 0;
  int64_t places[part_tiles];
  OfGroup::Place groups[part_tiles];
  Operands operands[part_tiles][vectors];

  // The strip's tiles from the t-th present one on, as far as they are in the same part of its columns.
  void expand(const Strips& w, int64_t strip, int64_t t, Reader& reader) {
    const int64_t present = w.present_tiles(strip);
    for (tiles = 0; t + tiles < present; ++tiles) {
      const int64_t place = w.place(strip, t + tiles);
      if (tiles > 0 && place / part_tiles != places[0] / part_tiles) break;
      reader.open_tile(w, strip, place);
      places[tiles] = place;
      groups[tiles] = reader.group.place;
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
SC_SHARED void multiply_parts(const Part* parts, const IntegerRows& x, bool begins, float* out) {
  IntegerSums<rows, strips> sums;
  for (int64_t t = 0; t < parts[0].tiles; ++t) {
    const int64_t place = parts[0].places[t];
#pragma GCC unroll 2
    for (int s = 0; s < strips; ++s) sums.open_tile(s, x, place);
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
    for (int s = 0; s < strips; ++s) sums.flush(s, parts[s].groups[t]);
  }
#pragma GCC unroll 2
  for (int s = 0; s < strips; ++s)
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i, out += strip_rows)
      store(out, begins ? sums.total[s][i] : load<Floats<strip_rows>>(out) + sums.total[s][i]);
}

// Whether W is expanded for so many rows: where a vector of it takes two instructions only, four groups
// of rows are not worth it.
SC_INLINE bool expands(int64_t rows) { return masked || rows > 4 * rows_together; }

inline int64_t sums_bytes(const Groups& groups) {
  return groups.rows * strips_together * strip_rows * sizeof(float);
}

// Groups of rows of x that are there, from m0 on.
struct Panel {
  const SCLinearArguments& a;
  const Strips& w;
  const Groups& groups;
  char* x;
  float* sums;  // [group][strip][row][strip_rows]
  int64_t m0, rows;

  void multiply(Range strips) const {
    for (int64_t strip = strips.begin; strip < strips.end;) {
      const bool both = strip + 1 < strips.end && w.has_same_tiles(strip, strip + 1);
      if (both) {
        multiply<strips_together>(strip, strips.end);
      } else {
        multiply<1>(strip, strips.end);
      }
      strip += both ? strips_together : 1;
    }
  }

 private:
  // Some strips that have the same tiles; those from `end` on are another thread's.
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
        multiply_parts<rows_together, strips>(parts, groups.group(x, i), t == 0, sums + i * step);
      t += parts[0].tiles;
    } while (t < w.present_tiles(strip));
    for (int64_t i = 0; i < rows; i += rows_together) {
      const int64_t there = rows - i < rows_together ? rows - i : rows_together;
      const float* scales = groups.group(x, i).scales;
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
  const Groups groups(w, m);
  return workspace_bytes(w, m, threads, groups.room(sums_bytes(groups)));
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Groups groups(w, a.m);
  const Room room = groups.room(sums_bytes(groups));
  for_each_panel(a, w, room, [&](const Share& part, int64_t m0, int64_t rows) {
    char* x = part.packed;
    groups.fill(a, m0, rows, part.packer, part.packers, x);
    wait_for_threads(part.packers);
    if (!expands(rows)) {
      multiply_groups(a, w, groups, x, part.strips, m0, rows);
    } else {
      Panel{a, w, groups, x, reinterpret_cast<float*>(part.own), m0, rows}.multiply(part.strips);
    }
  });
}
