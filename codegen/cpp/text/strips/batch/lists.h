// Masked tiles times many rows of x, as lists: of some columns each row's kept values are put side by
// side, with the places of their columns, while they are near; then each is multiplied with many rows.

namespace {

constexpr int64_t tiles_at_once = step_tiles;
constexpr int64_t words_at_once = tiles_at_once * tile_columns / columns_of_word;
static_assert(words_at_once <= 256, "places are bytes");
constexpr bool stream_is_kept = false;

// The lists of a strip; behind each is room for a vector.
struct Kept {
  int32_t counts[strip_rows];
  uint8_t columns[strip_rows][words_at_once + lanes];
  Word values[strip_rows][words_at_once + lanes];
};

// The next tile of a reader, behind those of the step before it.
SC_INLINE void expand_kept(Reader& reader, Kept* lists, int64_t tile) {
  using Listed = std::conditional_t<columns_of_word == 1, float, bfloat16>;
  constexpr int words = tile_columns / columns_of_word;
  if (tile == 0) std::memset(lists->counts, 0, sizeof lists->counts);
  alignas(64) Listed columns[words * columns_of_word][strip_rows];
#pragma GCC unroll 32
  for (int v = 0; v < vectors; ++v) store_expanded(reader, reader.next(v), columns[v * depth]);
  for (int first = 0; first < words; first += lanes) {
    Values square[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) square[i] = load<Values>(columns[(first + i) * columns_of_word]);
    turn(square);
    const int place = static_cast<int>(tile) * words + first;
    // Rows at constant distances: GCC would keep a pointer to each of them, in memory.
    asm("" : "+r"(lists));
#pragma GCC unroll 16
    for (int r = 0; r < strip_rows; ++r) {
      int32_t& count = lists->counts[r];
      count += compress((Register)square[r], place, lists->values[r] + count, lists->columns[r] + count);
    }
  }
}

#if defined(__AVX512BF16__)
struct PairProduct {
  static SC_INLINE Values add(Values sum, Values pair, Values x) {
    return (Values)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pair, (__m512bh)x);
  }
};
using Product = std::conditional_t<columns_of_word == 2, PairProduct, FloatProduct>;
#else
using Product = FloatProduct;
#endif

// sums [strip_rows][width] of a strip (+)= what its lists have times the x of their places.
template <int vectors_of_x>
SC_SHARED void multiply_strip(const Kept* lists, int64_t tiles, const char* x, bool begins,
                              float* sums) {
  constexpr int64_t width = vectors_of_x * lanes;
  if (begins) std::memset(sums, 0, sizeof(float) * strip_rows * width);
  for (int64_t r = 0; tiles > 0 && r < strip_rows; ++r, sums += width)
    multiply_list<vectors_of_x, float, Product>(lists->columns[r],
                                                reinterpret_cast<const char*>(lists->values[r]),
                                                lists->counts[r],
                                                reinterpret_cast<const float*>(x), sums);
}

}  // namespace
