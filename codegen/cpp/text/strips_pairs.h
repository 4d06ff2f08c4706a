// Many rows of x times paired tiles.
//
// A row of W takes one product of pairs for every four columns, with the vector of pairs of x that
// the kind of its kept pair names: half of what a dense product takes.
//   sums     [tile of rows][row of W][rows of the tile]

namespace {

// A tile of W as it is multiplied, and as streams of bfloat16 have it: the kinds of a lane's pairs,
// four bits each, the first lowest, and the pairs.
struct PairTile {
  uint32_t kinds[strip_rows];
  uint32_t values[tile_groups][strip_rows];
};
constexpr bool stream_is_pairs = value_bits == 16;
static_assert(!stream_is_pairs || sizeof(PairTile) == tile_bytes);

// The next tile of a reader, from integers of which a vector has two groups.
SC_INLINE void expand_pairs(Reader& reader, PairTile& out) {
  if constexpr (!stream_is_pairs) {
    const __m512i lower = _mm512_set1_epi32(0xf);
    __m512i kinds = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int g = 0; g < tile_groups; ++g) {
      const __m512i kind = _mm512_and_si512(_mm512_srli_epi32(reader.kept.kinds, kind_shift(g)), lower);
      kinds = _mm512_or_si512(kinds, _mm512_slli_epi32(kind, 4 * g));
    }
    store(out.kinds, kinds);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const __m512i codes = reader.next(v);
      store(out.values[2 * v], pairs_of(reader, codes, 0));
      store(out.values[2 * v + 1], pairs_of(reader, codes, 2));
    }
  }
}

// sums [16][width] of a strip (+)= the pairs of its tiles times those of x that they name.
template <int vectors_of_x>
SC_INLINE void multiply_strip(const PairTile* tiles, int64_t count, const char* kinds, bool begins,
                              float* sums) {
  constexpr int rows = vectors_of_x == 4 ? 4 : 8, width = vectors_of_x * lanes;
  constexpr uint64_t place_bits = 7 * kind_bytes;
  constexpr int place_shift = __builtin_ctzll(kind_bytes);
  for (int first = 0; first < strip_rows; first += rows) {
    __m512 total[rows][vectors_of_x];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_of_x; ++v) total[r][v] = _mm512_setzero_ps();
    const char* group = kinds;
    for (int64_t t = 0; t < count; ++t) {
      const PairTile& tile = tiles[t];
      uint64_t two_kinds[rows / 2];  // of two rows
#pragma GCC unroll 4
      for (int r = 0; r < rows; r += 2) two_kinds[r / 2] = load<uint64_t>(tile.kinds + first + r);
      for (int64_t g = 0; g < tile_groups; ++g, group += group_bytes) {
#pragma GCC unroll 2
        for (int quad = 0; quad < rows; quad += 4) {
          // Four rows by one load: what is read is what binds.
          const __m512i four = _mm512_broadcast_i32x4(load<__m128i>(tile.values[g] + first + quad));
          const __m512i each[] = {_mm512_shuffle_epi32(four, _MM_PERM_AAAA),
                                  _mm512_shuffle_epi32(four, _MM_PERM_BBBB),
                                  _mm512_shuffle_epi32(four, _MM_PERM_CCCC),
                                  _mm512_shuffle_epi32(four, _MM_PERM_DDDD)};
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) {
            const uint64_t kind = two_kinds[(quad + r) / 2];
            const char* x = group + ((r % 2 ? kind >> (32 - place_shift) : kind << place_shift) & place_bits);
#pragma GCC unroll 4
            for (int v = 0; v < vectors_of_x; ++v) {
              __m512& sum = total[quad + r][v];
              sum = _mm512_dpbf16_ps(sum, (__m512bh)each[r],
                                     (__m512bh)load<__m512i>(x + v * sizeof(__m512i)));
            }
          }
        }
#pragma GCC unroll 4
        for (uint64_t& kind : two_kinds) kind >>= 4;
      }
    }
    float* to = sums + first * width;
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_of_x; ++v, to += lanes)
        store(to, begins ? total[r][v] : _mm512_add_ps(load<__m512>(to), total[r][v]));
  }
}

// Where everything is in the workspace: x, then what each thread has for itself.
struct Workspace {
  int64_t rows, strips, x_bytes, kinds_bytes, pairs_bytes, sums_bytes;

  Workspace(const Strips& w, int64_t m)
      : rows(m < block_rows ? m : block_rows),
        strips(w.strips < block_strips ? w.strips : block_strips),
        x_bytes(sizeof(bfloat16) * padded_rows(rows) * padded_columns(w.k)),
        kinds_bytes(step_tiles * tile_groups * group_bytes),
        pairs_bytes(stream_is_pairs ? 0 : sizeof(PairTile) * step_tiles * strips),
        sums_bytes(sizeof(float) * strips * strip_rows * padded_rows(rows)) {}
  int64_t own() const { return kinds_bytes + pairs_bytes + sums_bytes; }
};

// Strips whose sums are kept at once, times all rows of x of a panel.
struct Block {
  const SCLinearArguments& a;
  const Strips& w;
  Range strips;
  const uint32_t* x;
  int64_t m0, rows;
  char* kinds;
  PairTile* expanded;  // [strip][step_tiles], where streams have other values
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
      const int64_t tiles = t + step_tiles < w.tiles ? step_tiles : w.tiles - t;
      const PairTile* pairs[block_strips];
      for (int64_t s = 0; s < count; ++s) pairs[s] = read_tiles(readers[s], s, t, tiles);
      multiply_step(t, tiles, count, pairs, readers);
      t += step_tiles;
    } while (t < w.tiles);
    finish();
  }

 private:
  // The tiles of a strip, and the reader behind them.
  SC_INLINE const PairTile* read_tiles(Reader& from, int64_t s, int64_t t, int64_t tiles) const {
    if constexpr (stream_is_pairs) {
      const char* at = from.at;
      from.at += tiles * tile_bytes;
      return reinterpret_cast<const PairTile*>(at);
    }
    Reader reader = from;  // a copy: for all a compiler knows, what is stored may change the reader
    PairTile* to = expanded + s * step_tiles;
    for (int64_t i = 0; i < tiles; ++i) {
      reader.open_tile(w, strips.begin + s, t + i);
      expand_pairs(reader, to[i]);
    }
    from = reader;
    return to;
  }
  void multiply_step(int64_t t, int64_t tiles, int64_t count, const PairTile* const* pairs,
                     const Reader* readers) const {
    for_each_tile(rows, [&](int64_t first, int64_t width) {
      const uint32_t* from = x + first * padded_columns(w.k) / 2 + t * tile_columns / 2 * width;
      float* to = sums + first * count * strip_rows;
      with_width(width, [&](auto vectors_of_x) {
        make_kinds<vectors_of_x>(from, tiles * tile_groups, kinds);
        for (int64_t s = 0; s < count; ++s, to += strip_rows * width) {
          // Memory has the time of this step for the next one's tiles.
          for (int64_t i = 0; first == 0 && i < step_tiles * tile_bytes; i += 64)
            __builtin_prefetch(readers[s].at + i);
          multiply_strip<vectors_of_x>(pairs[s], tiles, kinds, t == 0, to);
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
                      [&](Values sums) SC_INLINED { return scale_sums(w, s, sums); });
      }
    });
  }
};

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  const Workspace space(w, m);
  const int64_t decode = m <= decode_rows ? decode_workspace(w) : 0;
  const int64_t copies = Share::copies(m, space.x_bytes, threads);
  const int64_t batch = copies * space.x_bytes + threads * space.own();
  return batch > decode ? batch : decode;
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Workspace space(w, a.m);
  parallel(useful_threads(a, header_of(a.weight).slots * a.m), [&](int64_t thread, int64_t of) {
    const Share part(w, a.m, space.x_bytes, thread, of);
    const int64_t packers = part.packers(of), copy = part.by_rows ? thread : 0;
    char* memory = static_cast<char*>(a.workspace);
    uint32_t* x = reinterpret_cast<uint32_t*>(memory + copy * space.x_bytes);
    char* kinds = memory + of / packers * space.x_bytes + thread * space.own();
    PairTile* expanded = reinterpret_cast<PairTile*>(kinds + space.kinds_bytes);
    float* sums = reinterpret_cast<float*>(kinds + space.kinds_bytes + space.pairs_bytes);
    const int64_t strips = part.strips.end - part.strips.begin;
    const int64_t blocks = ceil_div(strips, block_strips);
    for (int64_t m0 = part.rows.begin; m0 < part.rows.end; m0 += space.rows) {
      const int64_t rows = m0 + space.rows < part.rows.end ? space.rows : part.rows.end - m0;
      pack_x(a, w.k, m0, rows, thread % packers, packers, x);
      wait_for_threads(packers);
      for (int64_t b = 0; b < blocks; ++b) {
        const Range own = share(strips, b, blocks);
        Block{a, w, {part.strips.begin + own.begin, part.strips.begin + own.end}, x, m0, rows,
              kinds, expanded, sums}
            .multiply(part.strips.end);
      }
      wait_for_threads(packers);
    }
  });
}
