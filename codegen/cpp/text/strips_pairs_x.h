// Many rows of x for paired tiles of W: a row of x in each lane.

namespace {

constexpr int64_t tile_groups = tile_columns / group_columns_of_pair;
constexpr int64_t lanes = native_floats;
constexpr int64_t widest = x_vectors;

// How many rows of x are multiplied together where so many are left.
SC_INLINE int64_t width_of(int64_t rest) {
  return rest <= lanes ? lanes : rest <= 2 * lanes ? 2 * lanes : widest * lanes;
}

template <class Run>
SC_INLINE void with_width(int64_t width, Run&& run) {
  if (width == lanes) {
    run(lane<1>());
  } else if (width == 2 * lanes) {
    run(lane<2>());
  } else {
    run(lane<widest>());
  }
}

// Call visit(first, width) for the tiles of so many rows of x.
template <class Visit>
SC_INLINE void for_each_tile(int64_t rows, Visit&& visit) {
  for (int64_t first = 0; first < rows; first += widest * lanes)
    visit(first, width_of(rows - first));
}

inline int64_t padded_rows(int64_t rows) {
  int64_t padded = 0;
  for_each_tile(rows, [&](int64_t first, int64_t width) { padded = first + width; });
  return padded;
}

}  // namespace
