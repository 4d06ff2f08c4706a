// Paired tiles times floats: each kept value times the activation of its column, of many rows.

namespace {

constexpr int64_t tiles_at_once = step_tiles;

// A tile of W as it is multiplied, and as streams of float32 have it: the kinds of a lane's pairs, four
// bits each, the first lowest, and the values of the pairs.
struct Kept {
  uint32_t kinds[strip_rows];
  float values[stored_columns][strip_rows];
};
constexpr bool stream_is_kept = !has_scales && value_bits == 32;
static_assert(!stream_is_kept || sizeof(Kept) == tile_bytes);

// The next tile of a reader.
SC_INLINE void expand_kept(Reader& reader, Kept* tiles, int64_t tile) {
  Kept& out = tiles[tile];
  std::memcpy(out.kinds, reader.head, head_bytes);
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) store_expanded(reader, reader.next(v), out.values[v * depth]);
}

// Where the columns of a lane's pairs are, in bytes from the first of their four: those of the second
// in the upper half.
template <int column_bytes>
struct PlacesOfPairs {
  alignas(64) uint32_t of[tile_groups][strip_rows];

  SC_INLINE void read(const uint32_t* kinds) {
    alignas(64) static constexpr struct Table {
      uint32_t of[strip_rows] = {};
      constexpr Table() {
        for (int kind = 0; kind < pair_kinds; ++kind)
          of[kind] = (first_of_pair[kind] | second_of_pair[kind] << 16) * column_bytes;
      }
    } table;
    Words rest = load<Words>(kinds);
#pragma GCC unroll 8
    for (int64_t g = 0; g < tile_groups; ++g, rest >>= 4)
      store(of[g], look_up(table.of, (Register)rest));
  }
};

// sums [strip_rows][width] of a strip (+)= the values of its tiles times the activations of their columns.
template <int vectors_of_x>
SC_SHARED void multiply_strip(const Kept* tiles, int64_t count, const char* x, bool begins,
                              float* sums) {
  // Eight sums in flight: the first and the second of each pair by themselves where there are fewer.
  constexpr int rows = vectors_of_x < 4 ? 4 / vectors_of_x : 1, width = vectors_of_x * lanes;
  constexpr int chains = vectors_of_x < 8 ? 2 : 1;
  constexpr int column_bytes = width * sizeof(float), step = group_columns_of_pair * column_bytes;
  PlacesOfPairs<column_bytes> places[tiles_at_once];
  for (int64_t t = 0; t < count; ++t) places[t].read(tiles[t].kinds);
  for (int first = 0; first < strip_rows; first += rows) {
    Values total[rows][chains][vectors_of_x] = {};
    const char* group = x;
    for (int64_t t = 0; t < count; ++t) {
      const float* w = tiles[t].values[0] + first;
      const uint32_t* place = places[t].of[0] + first;
      for (int64_t g = 0; g < tile_groups; ++g, group += step, w += 2 * strip_rows, place += strip_rows) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
          const char* at[] = {group + (place[r] & 0xffff), group + (place[r] >> 16)};
#pragma GCC unroll 2
          for (int c = 0; c < 2; ++c)
#pragma GCC unroll 8
            for (int v = 0; v < vectors_of_x; ++v)
              total[r][c % chains][v] += w[c * strip_rows + r] * load<Values>(at[c] + v * sizeof(Values));
        }
      }
    }
    float* to = sums + first * width;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < vectors_of_x; ++v, to += lanes) {
        Values sum = total[r][0][v];
        if constexpr (chains > 1) sum += total[r][1][v];
        store(to, begins ? sum : load<Values>(to) + sum);
      }
  }
}

}  // namespace
