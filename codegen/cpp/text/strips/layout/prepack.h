// From the canonical tensors of a Packed to the layout `strips` and back to the dense weight.

namespace {

using CodeOrNone = std::conditional_t<has_zero, Code, uint16_t>;  // `cut` where there is none

// One strip of W as codes, [strip_rows][columns], columns rounded up to whole tiles.
struct DenseStrip {
  int64_t columns;
  CodeOrNone* codes;

  explicit DenseStrip(int64_t k)
      : columns(ceil_div(k, tile_columns) * tile_columns),
        codes(new CodeOrNone[strip_rows * columns]) {}
  ~DenseStrip() { delete[] codes; }
  DenseStrip(const DenseStrip&) = delete;
  DenseStrip& operator=(const DenseStrip&) = delete;

  CodeOrNone& at(int64_t lane, int64_t column) { return codes[lane * columns + column]; }

  void read(const Weight& w, int64_t strip) {
    for (int64_t i = 0; i < strip_rows * columns; ++i) codes[i] = cut;
    for (int64_t lane = 0; lane < strip_rows; ++lane) {
      const int64_t row = strip * strip_rows + lane;
      if (row >= w.n) break;
      int64_t cursor = first_slot(w, row);
      visit_row(w, row, cursor, 0, w.k, [&](auto, int64_t column, int64_t slot) SC_INLINED {
        if (column < (has_zero ? w.k : columns)) at(lane, column) = static_cast<Code>(code(w, slot));
      });
    }
  }
  bool is_empty(int64_t tile) {
    for (int64_t lane = 0; lane < strip_rows; ++lane)
      for (int64_t c = tile * tile_columns; c < (tile + 1) * tile_columns; ++c)
        if (at(lane, c) != cut) return false;
    return true;
  }
};

inline void write_codes(const Code* codes, int count, char* out) {
  if constexpr (value_bits >= 8) {
    std::memcpy(out, codes, sizeof(Code) * count);
  } else {
    for (int i = 0; i < count; i += 2)
      out[i / 2] = static_cast<char>(codes[i] | (i + 1 < count ? codes[i + 1] << 4 : 0));
  }
}

// The i-th code of vector `v`, which begins at `at`.
inline Code read_code(const char* at, int v, int64_t i) {
  if constexpr (vectors_of_bytes > 1) {
    const int part = v % vectors_of_bytes;
    return static_cast<Code>((at - part * vector_bytes)[i] >> part * value_bits & ((1 << value_bits) - 1));
  } else if constexpr (value_bits >= 8) {
    return load<Code>(at + i * sizeof(Code));
  } else {
    return static_cast<Code>(at[i / 2] >> (i % 2 * 4) & 15);
  }
}

// The kind of pair that holds what is kept of four columns, of which no more than two are.
inline int kind_of(DenseStrip& strip, int64_t lane, int64_t column) {
  for (int kind = 0; kind < pair_kinds; ++kind) {
    bool holds = true;
    for (int c = 0; c < group_columns_of_pair; ++c)
      if (c != first_of_pair[kind] && c != second_of_pair[kind])
        holds = holds && strip.at(lane, column + c) == cut;
    if (holds) return kind;
  }
  return 0;
}

inline uint32_t kinds_of_lane(DenseStrip& strip, int64_t tile, int64_t lane) {
  uint32_t kinds = 0;
  for (int g = 0; g < tile_columns / group_columns_of_pair; ++g) {
    const int64_t column = tile * tile_columns + g * group_columns_of_pair;
    kinds |= static_cast<uint32_t>(kind_of(strip, lane, column)) << kind_shift(g);
  }
  return kinds;
}

// The column of a tile that is stored as its `stored`, of a lane with these kinds.
inline int64_t column_of(int64_t stored, uint32_t kinds) {
  if constexpr (!paired) return stored;
  const int group = static_cast<int>(stored / 2), kind = kinds >> kind_shift(group) & 7;
  const int column = stored % 2 ? second_of_pair[kind] : first_of_pair[kind];
  return group * group_columns_of_pair + column;
}

// What is stored of a tile.
struct Tile {
  DenseStrip& strip;
  int64_t tile;
  uint32_t kinds[strip_rows] = {};

  Tile(DenseStrip& strip, int64_t tile) : strip(strip), tile(tile) {
    for (int64_t lane = 0; paired && lane < strip_rows; ++lane)
      kinds[lane] = kinds_of_lane(strip, tile, lane);
  }
  // The e-th code of vector `v`.
  SC_INLINE CodeOrNone code(int v, int e) const {
    const int64_t lane = e / depth, stored = v * depth + column_of_byte(e % depth);
    return strip.at(lane, tile * tile_columns + column_of(stored, kinds[lane]));
  }
};

// Write a tile, or with `out` null only count its bytes.
inline int64_t write_tile(DenseStrip& strip, int64_t tile, char* out) {
  int64_t bytes = head_bytes;
  if (!masked && !out) return bytes + vectors * vector_bytes;
  const Tile from(strip, tile);
  if constexpr (paired) std::memcpy(out, from.kinds, head_bytes);
  if constexpr (vectors_of_bytes > 1) {
    for (int v = 0; v < vectors; v += vectors_of_bytes, bytes += vectors_of_bytes * vector_bytes)
      for (int e = 0; e < codes_per_vector; ++e) {
        int byte = 0;
        for (int i = 0; i < vectors_of_bytes; ++i)
          byte |= static_cast<Code>(from.code(v + i, e)) << i * value_bits;
        out[bytes + e] = static_cast<char>(byte);
      }
    return bytes;
  }
  for (int v = 0; v < vectors; ++v) {
    Mask mask = 0;
    Code kept[codes_per_vector];
    int count = 0;
    for (int e = 0; e < codes_per_vector; ++e) {
      const CodeOrNone value = from.code(v, e);
      if (masked && value == cut) continue;
      mask |= static_cast<Mask>(Mask{1} << e);
      kept[count++] = static_cast<Code>(value);
    }
    if (out && masked) store(out + v * sizeof(Mask), mask);
    if (out) write_codes(kept, count, out + bytes);
    bytes += bytes_of(count);
  }
  return bytes;
}

// Bytes of a strip's stream, and how many tiles are in it.
struct StripSize {
  int64_t bytes = 0, tiles = 0;

  explicit StripSize(DenseStrip& strip) {
    for (int64_t tile = 0; tile < strip.columns / tile_columns; ++tile) {
      if (skips && strip.is_empty(tile)) continue;
      ++tiles;
      bytes += write_tile(strip, tile, nullptr);
    }
    bytes = ceil_div(bytes, 64) * 64;
  }
};

template <class Visit>
inline void for_each_strip(const Weight& w, int64_t threads, Visit&& visit) {
  parallel(threads, [&](int64_t thread, int64_t of) {
    DenseStrip strip(w.k);
    const Range part = share(ceil_div(w.n, strip_rows), thread, of);
    for (int64_t s = part.begin; s < part.end; ++s) {
      strip.read(w, s);
      visit(strip, s);
    }
  });
}

}  // namespace

// Bytes of the layout for a canonical one; `sizes` [strips][2] gets bytes and tiles of each strip.
SC_EXPORT int64_t sc_prepack_size(const void* canonical, int64_t* sizes, int64_t threads) {
  const Weight w(canonical);
  for_each_strip(w, threads, [&](DenseStrip& strip, int64_t s) {
    const StripSize size(strip);
    sizes[2 * s] = size.bytes;
    sizes[2 * s + 1] = size.tiles;
  });
  const int64_t strips = ceil_div(w.n, strip_rows);
  const int64_t extra = extra_bytes(w);
  int64_t bytes = sizeof(SCLayoutHeader) + (extra ? 5 : 4) * 64 + stream_slack + extra, tiles = 0;
  for (int64_t s = 0; s < strips; ++s) {
    bytes += sizes[2 * s];
    tiles += sizes[2 * s + 1];
  }
  bytes += sizeof(Scale) * strips * scale_groups(w.k) * strip_rows;
  return bytes + sizeof(int64_t) * strips + sizeof(int32_t) * (strips + 1 + (skips ? tiles : 0));
}

// Write the layout; `out` is as long as sc_prepack_size said.
SC_EXPORT void sc_prepack(const void* canonical, const int64_t* sizes, void* out, int64_t total,
                          int64_t layout, int64_t threads) {
  const Weight w(canonical);
  const int64_t strips = ceil_div(w.n, strip_rows);
  SCLayoutHeader& header = *static_cast<SCLayoutHeader*>(out);
  header = {};
  header.layout = layout;
  header.n = w.n;
  header.k = w.k;
  header.slots = w.slots;
  header.total_bytes = total;
  header.tensors = 5;
  int64_t tiles = 0;
  for (int64_t s = 0; s < strips; ++s) tiles += sizes[2 * s + 1];
  const auto aligned = [](int64_t bytes) { return ceil_div(bytes, 64) * 64; };
  header.offsets[0] = sizeof(SCLayoutHeader);
  header.offsets[1] = aligned(header.offsets[0] + sizeof(int64_t) * strips);
  header.offsets[2] = header.offsets[1] + sizeof(int32_t) * (strips + 1);
  header.offsets[3] = aligned(header.offsets[2] + sizeof(int32_t) * (skips ? tiles : 0));
  const int64_t scales = strips * scale_groups(w.k) * strip_rows;
  header.offsets[5] = aligned(header.offsets[3] + sizeof(Scale) * scales);
  header.offsets[4] = aligned(header.offsets[5] + extra_bytes(w));

  std::memset(static_cast<char*>(out) + sizeof header, 0, header.offsets[4] - sizeof header);
  const Strips to(out);
  int64_t* offsets = const_cast<int64_t*>(to.offsets);
  int32_t* first_tiles = const_cast<int32_t*>(to.first_tiles);
  int64_t bytes = 0, count = 0;
  for (int64_t s = 0; s < strips; ++s) {
    offsets[s] = bytes;
    first_tiles[s] = static_cast<int32_t>(count);
    bytes += sizes[2 * s];
    count += sizes[2 * s + 1];
  }
  first_tiles[strips] = static_cast<int32_t>(count);
  write_extra(w, to, const_cast<char*>(to.extra));
  const int64_t behind = header.offsets[4] + bytes;
  std::memset(static_cast<char*>(out) + behind, 0, total - behind);
  for_each_strip(w, threads, [&](DenseStrip& strip, int64_t s) {
    char* stream = const_cast<char*>(to.stream) + offsets[s];
    int32_t* places = const_cast<int32_t*>(to.tile_places) + first_tiles[s];
    for (int64_t tile = 0; tile < to.tiles; ++tile) {
      if (skips && strip.is_empty(tile)) continue;
      if (skips) *places++ = static_cast<int32_t>(tile);
      stream += write_tile(strip, tile, stream);
    }
    write_scales(w, s, const_cast<Scale*>(to.strip_scales(s)));
    std::memset(stream, 0, to.stream + offsets[s] + sizes[2 * s] - stream);
  });
}

namespace {

template <class Out>
void unpack(const Strips& w, int64_t first, int64_t rows, Out* out, int64_t threads) {
  std::memset(out, 0, sizeof(Out) * rows * w.k);
  const int64_t last = first + rows, first_strip = first / strip_rows;
  parallel(threads, [&](int64_t thread, int64_t of) {
    const Range part = share(ceil_div(last, strip_rows) - first_strip, thread, of);
    for (int64_t s = first_strip + part.begin; s < first_strip + part.end; ++s) {
      const char* at = w.stream + w.offsets[s];
      for (int64_t t = 0; t < w.present_tiles(s); ++t) {
        const char* head = at;
        at += head_bytes;
        for (int v = 0; v < vectors; ++v) {
          const Mask mask = masked ? load<Mask>(head + v * sizeof(Mask)) : static_cast<Mask>(-1);
          int64_t count = 0;
          for (int e = 0; e < codes_per_vector; ++e) {
            if (!(mask >> e & 1)) continue;
            const Code value = read_code(at, v, count++);
            const int64_t lane = e / depth, row = s * strip_rows + lane;
            const uint32_t kinds = paired ? load<uint32_t>(head + lane * sizeof(uint32_t)) : 0;
            const int64_t stored = v * depth + column_of_byte(e % depth);
            const int64_t column = w.place(s, t) * tile_columns + column_of(stored, kinds);
            if (first <= row && row < last && column < w.k && value != cut)
              out[(row - first) * w.k + column] = element_of<Out>(w, value, row, column);
          }
          at += bytes_of(count);
        }
      }
    }
  });
}

}  // namespace

// Rows of the dense weight, bit for bit.
SC_EXPORT void sc_unpack(const void* layout, int64_t first, int64_t rows, int64_t in_float32,
                         void* dense, int64_t threads) {
  const Strips w(layout);
  if (in_float32) return unpack(w, first, rows, static_cast<float*>(dense), threads);
  unpack(w, first, rows, static_cast<Element*>(dense), threads);
}
