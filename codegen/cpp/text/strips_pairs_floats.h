// Paired tiles times floats: each kept value times the activation of its column, of many rows.
//   x        [tile of rows][columns][rows of the tile] floats

namespace {

using Word = float;  // of x
constexpr int64_t columns_of_word = 1;
constexpr int64_t tile_choices_bytes = 0;
// x is multiplied as it is.
constexpr bool scales_x = false;
inline float batch_scale(const Element*, int64_t) { return 1.0f; }
constexpr int64_t tiles_at_once = step_tiles;

// Rows of x from `row` and 32 columns from `c0`, turned: [32 columns][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, const float*, Word* out) {
  const Element* x = static_cast<const Element*>(a.x) + row * k + c0;
  for (int64_t c = 0; c < tile_columns; c += lanes) {
    Values square[lanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) {
      if (i < rows && c0 + c + lanes <= k) {
        square[i] = load_floats<lanes>(x + i * k + c);
      } else {
        const int64_t left = i < rows ? k - c0 - c : 0;
        square[i] = left > 0 ? load_values(x + i * k, c, left) : Values{};
      }
    }
    turn(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) store(out + (c + i) * width, square[i]);
  }
}

// Every column is at hand as it is.
template <int vectors_of_x>
SC_INLINE const char* lay_out_choices(const Word* x, int64_t, char*) {
  return reinterpret_cast<const char*>(x);
}

// A tile of W as it is multiplied, and as streams of float32 have it: the kinds of a lane's pairs, four
// bits each, the first lowest, and the values of the pairs.
struct PairTile {
  uint32_t kinds[strip_rows];
  float values[stored_columns][strip_rows];
};
constexpr bool stream_is_pairs = !has_scales && value_bits == 32;
static_assert(!stream_is_pairs || sizeof(PairTile) == tile_bytes);

// The next tile of a reader.
SC_INLINE void expand_pairs(Reader& reader, PairTile& out) {
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
SC_SHARED void multiply_strip(const PairTile* tiles, int64_t count, const char* x, bool begins,
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
