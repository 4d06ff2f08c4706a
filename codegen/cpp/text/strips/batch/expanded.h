// Many rows of x: tiles of W are expanded into a scratch that stays in the innermost caches, and
// multiplied there with packed tiles of x as if they were dense.
//
// Both are packed so that every multiplication runs along consecutive memory:
//   x      [tile of 16 rows][pack of columns][16][pack_columns]
//   W      [strip][pack][pack_columns / operand_depth][strip_rows][operand_depth]
//   sums   [tile of 16 rows][strip][16 rows of x][strip_rows]

namespace {

struct Panel {
  int64_t m0, rows;       // of x
  const Activation* x;    // packed
  int64_t x_stride;       // from one tile of rows to the next
  float* x_scales;        // of its rows, where x is rounded
  int32_t* x_totals;      // [part][row], where integers are multiplied
  int64_t x_tiles() const { return ceil_div(rows, x_rows); }
};

// Sums of a part, of a strip and a row of the panel. Codes are `cut` above their values.
SC_INLINE Values part_of_sums(const Panel& panel, int64_t part, int64_t row, Sums sums) {
  if constexpr (multiplies_integers)
    sums -= static_cast<Sum>(cut) * panel.x_totals[part * panel.rows + row];
  return __builtin_convertvector(sums, Values);
}

// All sums of a part become floats, and are added to those of the parts before it.
inline void add_part(const Chunk& chunk, const Panel& panel, const Sum* sums, float* totals) {
  for (int64_t row = 0; row < panel.rows; ++row)
    for (int s = 0; s < chunk.strips; ++s) {
      const int64_t at = (row / x_rows * group_strips + s) * sums_tile + row % x_rows * strip_rows;
      const Values part = part_of_sums(panel, chunk.part, row, load<Sums>(sums + at));
      store(totals + at, chunk.part ? load<Values>(totals + at) + part : part);
    }
}

// What a group of strips is in the end, for the rows of the panel: `sums`, or, of several parts, `totals`.
inline void finish_group(const SCLinearArguments& a, const Strips& w, const Chunk& chunk,
                         const Panel& panel, const Sum* sums, const float* totals) {
  static_assert(native_floats == strip_rows);
  for (int64_t i = 0; i < panel.x_tiles(); ++i) {
    const int64_t rest = panel.rows - i * x_rows, row = i * x_rows;
    for (int s = 0; s < chunk.strips; ++s) {
      const int64_t strip = chunk.strip + s;
      const int64_t first = strip * strip_rows, last = first + strip_rows;
      const int64_t first_sum = (i * group_strips + s) * sums_tile;
      finish_sums(a, w.n, {first, last < w.n ? last : w.n}, panel.m0 + row,
                  rest < x_rows ? rest : x_rows, [&](int64_t j, int64_t) SC_INLINED {
                    const int64_t at = first_sum + j * strip_rows;
                    Values values = totals ? load<Values>(totals + at)
                                           : part_of_sums(panel, 0, row + j, load<Sums>(sums + at));
                    if constexpr (rounds_activations) values *= panel.x_scales[row + j];
                    return scale_sums(w, strip, values);
                  });
    }
  }
}

// Strips in groups, which share the tiles of x while these are in the innermost cache.
inline void multiply_strips(const SCLinearArguments& a, const Strips& w, Range part,
                            const Panel& panel, Operand* scratch, Sum* sums, float* totals) {
  Expander expander(w, part, scratch);
  while (expander.has_next()) {
    const Chunk chunk = expander.take();
    multiply_chunk(chunk, panel.x, panel.x_stride, panel.x_tiles(), sums, expander);
    if (chunk.ends && totals) add_part(chunk, panel, sums, totals);
    if (chunk.ends && chunk.part == parts_of(w) - 1) finish_group(a, w, chunk, panel, sums, totals);
  }
}

// Tiles [first, last) of columns of the panel's x, packed; what x has not is zero.
inline void pack_x(const SCLinearArguments& a, int64_t k, const Panel& panel, Range steps,
                   Activation* out) {
  const int64_t packs = ceil_div(k, pack_columns);
  for (int64_t step = steps.begin; step < steps.end; ++step) {
    const int64_t tile = step / packs, c0 = step % packs * pack_columns;
    Activation* to = out + step * x_tile;
    const int64_t columns = c0 + pack_columns < k ? pack_columns : k - c0;
    for (int64_t i = 0; i < x_rows; ++i, to += pack_columns) {
      const int64_t row = tile * x_rows + i;
      if (row >= panel.rows) {
        std::memset(to, 0, sizeof(Activation) * pack_columns);
        continue;
      }
      const Element* from = static_cast<const Element*>(a.x) + (panel.m0 + row) * k + c0;
      const float scale = rounds_activations ? panel.x_scales[row] : 1.0f;
      Element padded[pack_columns] = {};
      if (columns < pack_columns) {
        std::memcpy(padded, from, sizeof(Element) * columns);
        from = padded;
      }
      for (int64_t c = 0; c < pack_columns; c += strip_rows)
        store_activations(from + c, scale, to + c);
    }
  }
}

inline void scale_x(const SCLinearArguments& a, int64_t k, const Panel& panel, Range rows) {
  for (int64_t i = rows.begin; i < rows.end; ++i)
    panel.x_scales[i] = activation_scale(static_cast<const Element*>(a.x) + (panel.m0 + i) * k, k);
}

// Sums of the integers that rows of x are rounded to.
inline void sum_x(const Strips& w, const Panel& panel, Range rows) {
#if defined(__AVX512VNNI__)
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const Activation* x = panel.x + i / x_rows * panel.x_stride + i % x_rows * pack_columns;
    for (int64_t part = 0, t = 0; part < parts_of(w); ++part) {
      __m512i total = _mm512_setzero_si512();
      for (int64_t end = (part + 1) * part_columns / pack_columns; t < packs_of(w) && t < end; ++t, x += x_tile)
        total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), load<__m512i>(x));
      panel.x_totals[part * panel.rows + i] = _mm512_reduce_add_epi32(total);
    }
  }
#endif
}

// Rows of x packed at once: as many as stay in the cache beside the scratch.
inline int64_t panel_rows(int64_t m, int64_t k) {
  const int64_t row_bytes = sizeof(Activation) * (k ? padded_columns(k) : tile_columns);
  const int64_t fitting = panel_bytes / row_bytes;
  const int64_t rows = fitting < 2 * x_rows ? 2 * x_rows : fitting / x_rows * x_rows;
  const int64_t most = rows < 32 * x_rows ? rows : 32 * x_rows;
  const int64_t all = ceil_div(m, x_rows) * x_rows;
  // Panels of equal size rather than a small last one.
  return ceil_div(ceil_div(all, ceil_div(all, most)), x_rows) * x_rows;
}

// Where everything is in the workspace: what is packed of x, by all threads or by each, then what each has for itself.
struct Workspace {
  int64_t rows, x_bytes, row_bytes, parts, scratch_bytes, sums_bytes;

  Workspace(const Strips& w, int64_t m)
      : rows(panel_rows(m, w.k)),
        x_bytes(sizeof(Activation) * rows / x_rows * packs_of(w) * x_tile),
        row_bytes(sizeof(float) * rows),
        parts(parts_of(w)),
        scratch_bytes(chunks_at_once * sizeof(Operand) * group_strips * scratch_size(w)),
        sums_bytes(sizeof(Sum) * rows * group_strips * strip_rows) {}
  // Threads may share out rows of x where W is not expanded for each of them.
  Room room() const {
    return {rows, x_bytes + (1 + parts) * row_bytes, scratch_bytes + (parts > 1 ? 2 : 1) * sums_bytes,
            stream_is_expanded && !uses_amx};
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
    Activation* x = reinterpret_cast<Activation*>(part.packed);
    float* x_scales = reinterpret_cast<float*>(part.packed + space.x_bytes);
    int32_t* x_totals = reinterpret_cast<int32_t*>(part.packed + space.x_bytes + space.row_bytes);
    Operand* scratch = reinterpret_cast<Operand*>(part.own);
    Sum* sums = reinterpret_cast<Sum*>(part.own + space.scratch_bytes);
    float* totals = space.parts > 1 ? reinterpret_cast<float*>(sums + space.sums_bytes / sizeof(Sum)) : nullptr;
    const TileRegisters registers;
    const Panel panel{m0, rows, x, packs_of(w) * x_tile, x_scales, x_totals};
    const auto own = [&](int64_t items) { return share(items, part.packer, part.packers); };
    if constexpr (rounds_activations) {
      scale_x(a, w.k, panel, own(rows));
      wait_for_threads(part.packers);
    }
    pack_x(a, w.k, panel, own(panel.x_tiles() * packs_of(w)), x);
    wait_for_threads(part.packers);
    if constexpr (multiplies_integers) {
      sum_x(w, panel, own(rows));
      wait_for_threads(part.packers);
    }
    const auto group = [&](int64_t strip) { return ceil_div(strip, group_strips) * group_strips; };
    const int64_t end = group(part.strips.end);
    multiply_strips(a, w, {group(part.strips.begin), end < w.strips ? end : w.strips}, panel, scratch,
                    sums, totals);
  });
}
