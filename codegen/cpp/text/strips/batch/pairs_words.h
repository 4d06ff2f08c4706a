// Paired tiles of integers times pairs of integers of 16 bits, in AVX2. x is rounded row by row, as for
// few rows of it.

namespace {

static_assert(planes == 1);
constexpr bool scales_x = true;
inline float batch_scale(const Element* x, int64_t k) { return row_scale(x, k); }
// No more than share a scale: behind them sums become floats.
constexpr int64_t tiles_at_once =
    group_columns > 0 ? std::gcd(step_tiles, group_columns / tile_columns) : step_tiles;
static_assert(tiles_at_once * tile_columns <= columns_in_sum, "until then they fit into 32 bits");

// Rows of x from `row` and 32 columns from `c0`, rounded and turned: [16 pairs][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, const float* scales, Word* out) {
  constexpr int64_t pairs = tile_columns / columns_of_word;
  static_assert(pairs == 2 * lanes);
  const Element* x = static_cast<const Element*>(a.x) + row * k + c0;
  Values left[lanes] = {}, right[lanes] = {};
  for (int64_t i = 0; i < lanes && i < rows; ++i) {
    const TileOfRow tile(x + i * k, k - c0);
    int16_t words[tile_columns];
    for (int64_t c = 0; c < tile_columns; c += lanes) {
      const auto integers = (Ints<lanes>)round_activations(tile.data() + c, scales[i]);
      store(words + c, __builtin_convertvector(integers, Vector<int16_t, lanes>));
    }
    left[i] = load<Values>(words);
    right[i] = load<Values>(words + tile_columns / 2);
  }
  turn(left);
  turn(right);
  for (int64_t i = 0; i < lanes; ++i) {
    store(out + i * width, left[i]);
    store(out + (lanes + i) * width, right[i]);
  }
}

// A tile of W as it is multiplied: the kinds of a lane's pairs, four bits each, the first lowest, the
// pairs as words, and, where its group of columns has some, scales.
struct Kept {
  uint32_t kinds[strip_rows];
  uint32_t values[tile_groups][strip_rows];
  float scales[strip_rows];
};
constexpr bool stream_is_kept = false;

// The next tile of a reader.
SC_INLINE void expand_kept(Reader& reader, Kept* tiles, int64_t tile) {
  Kept& out = tiles[tile];
  static_assert(vectors == tile_groups);
  std::memcpy(out.kinds, reader.head, head_bytes);
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v)
    store(out.values[v], operand_of(reader, reader.next(v)).words);
  if constexpr (group_columns > 0) store(out.scales, reader.group.scales);
}

// sums [strip_rows][width] of a strip (+)= the pairs of its tiles times those of x that they name.
template <int vectors_of_x>
SC_SHARED void multiply_strip(const Kept* tiles, int64_t count, const char* choices, bool begins,
                              float* sums) {
  constexpr int rows = 8 / vectors_of_x, width = vectors_of_x * lanes;  // eight sums
  alignas(32) uint32_t places[tiles_at_once][tile_groups][strip_rows];
  for (int64_t t = 0; t < count; ++t) {
    Words rest = load<Words>(tiles[t].kinds);
    for (int64_t g = 0; g < tile_groups; ++g, rest >>= 4)
      store(places[t][g], (rest & 7) * static_cast<uint32_t>(kind_bytes));
  }
  for (int first = 0; first < strip_rows; first += rows) {
    Register total[rows][vectors_of_x] = {};
    const char* group = choices;
    for (int64_t t = 0; t < count; ++t)
      for (int64_t g = 0; g < tile_groups; ++g, group += group_bytes) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
          const Register w = (Register)(Words{} + tiles[t].values[g][first + r]);
          const char* x = group + places[t][g][first + r];
#pragma GCC unroll 8
          for (int v = 0; v < vectors_of_x; ++v)
            total[r][v] = add_products_of_pairs(total[r][v], w, load<Register>(x + v * sizeof(Register)));
        }
      }
    float* to = sums + first * width;
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < vectors_of_x; ++v, to += lanes) {
        Values sum = __builtin_convertvector((Ints<lanes>)total[r][v], Values);
        if (group_columns > 0 && count > 0) sum *= tiles[0].scales[first + r];
        store(to, begins ? sum : load<Values>(to) + sum);
      }
  }
}

}  // namespace
