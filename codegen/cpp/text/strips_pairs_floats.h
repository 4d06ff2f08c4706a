// Paired tiles times floats, in AVX2: each kept value times the activation of its column, of many rows.
//   x        [tile of rows][columns][rows of the tile] floats

namespace {

using Word = float;  // of x
constexpr int64_t columns_of_word = 1;
constexpr int64_t choices_bytes = 0;

// Rows of x from `row` and 32 columns from `c0`, turned: [32 columns][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, Word* out) {
  const Element* x = static_cast<const Element*>(a.x) + row * k + c0;
  for (int64_t c = 0; c < tile_columns; c += lanes) {
    Values square[lanes];
#pragma GCC unroll 8
    for (int64_t i = 0; i < lanes; ++i) {
      if (i < rows && c0 + c + lanes <= k) {
        square[i] = load_floats<lanes>(x + i * k + c);
      } else {
        const int64_t left = i < rows ? k - c0 - c : 0;
        square[i] = left > 0 ? load_values(x + i * k, c, left) : Values{};
      }
    }
    turn(square);
#pragma GCC unroll 8
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

// Where the columns of every kind of pair are among four: bytes from the first column.
template <int column_bytes>
struct PlacesInGroup {
  uint32_t first[8] = {}, second[8] = {};
  constexpr PlacesInGroup() {
    for (int kind = 0; kind < pair_kinds; ++kind) {
      first[kind] = first_of_pair[kind] * column_bytes;
      second[kind] = second_of_pair[kind] * column_bytes;
    }
  }
};

// sums [8][width] of a strip (+)= the values of its tiles times the activations of their columns.
template <int vectors_of_x>
SC_SHARED void multiply_strip(const PairTile* tiles, int64_t count, const char* x, bool begins,
                              float* sums) {
  // Sums of all of them in flight, the first and the second of each pair by themselves.
  constexpr int rows = 4 / vectors_of_x, width = vectors_of_x * lanes;
  constexpr int column_bytes = width * sizeof(float), step = group_columns_of_pair * column_bytes;
  static constexpr PlacesInGroup<column_bytes> places;
  for (int first = 0; first < strip_rows; first += rows) {
    Values total[rows][2][vectors_of_x] = {};
    const char* group = x;
    for (int64_t t = 0; t < count; ++t) {
      const float* w = tiles[t].values[0] + first;
      uint32_t kinds[rows];
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) kinds[r] = tiles[t].kinds[first + r];
      for (int64_t g = 0; g < tile_groups; ++g, group += step, w += 2 * strip_rows) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
          const char* at[] = {group + places.first[kinds[r] & 7], group + places.second[kinds[r] & 7]};
          kinds[r] >>= 4;
#pragma GCC unroll 2
          for (int c = 0; c < 2; ++c)
#pragma GCC unroll 4
            for (int v = 0; v < vectors_of_x; ++v)
              total[r][c][v] += w[c * strip_rows + r] * load<Values>(at[c] + v * sizeof(Values));
        }
      }
    }
    float* to = sums + first * width;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_of_x; ++v, to += lanes) {
        const Values sum = total[r][0][v] + total[r][1][v];
        store(to, begins ? sum : load<Values>(to) + sum);
      }
  }
}

}  // namespace
