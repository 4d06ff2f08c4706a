// Many rows of x for what tiles of W keep: a row of x in each lane.

namespace {

using Word = std::conditional_t<columns_of_word == 1, float, uint32_t>;  // of x
constexpr int64_t tile_groups = tile_columns / group_columns_of_pair;
constexpr int64_t lanes = native_floats;
constexpr int widest = x_vectors;
static_assert((widest & (widest - 1)) == 0, "widths are halved");

// How many rows of x are multiplied together where so many are left: half as many wherever these hold
// them, and of eight vectors where two would be empty, since four are nearly as fast.
SC_INLINE int64_t width_of(int64_t rest) {
  int64_t width = widest * lanes;
  while (width > lanes && rest <= (width > 4 * lanes ? width / 4 * 3 : width / 2)) width /= 2;
  return width;
}

// Call run(vectors) with as many as a width has.
template <int vectors = widest, class Run>
SC_INLINE void with_width(int64_t width, Run&& run) {
  if constexpr (vectors > 1)
    if (width < vectors * lanes) return with_width<vectors / 2>(width, run);
  run(lane<vectors>());
}

// Call visit(first, width) for the tiles of so many rows of x.
template <class Visit>
SC_INLINE void for_each_tile(int64_t rows, Visit&& visit) {
  for (int64_t first = 0, width; first < rows; first += width) {
    width = width_of(rows - first);
    visit(first, width);
  }
}

// The rows of the tile that has this one.
inline Range tile_of(int64_t row, int64_t rows) {
  Range tile{};
  for_each_tile(rows, [&](int64_t first, int64_t width) {
    if (first <= row) tile = {first, first + width};
  });
  return tile;
}

inline int64_t padded_rows(int64_t rows) {
  int64_t padded = 0;
  for_each_tile(rows, [&](int64_t first, int64_t width) { padded = first + width; });
  return padded;
}

}  // namespace
