// What codes of a group of columns have in common, where they are integers that are summed before scales:
// `cut` above their values.

namespace {

constexpr bool has_zero = true;         // the code `cut` stands for zero
constexpr int32_t code_middle = cut;    // what is taken off codes before scales
SC_INLINE constexpr int column_of_byte(int byte) { return byte; }

SC_INLINE Floats<strip_rows> load_scales(const Scale* scales) {
  return load_floats<strip_rows>(scales);
}

struct OfGroup {
  using Place = const Scale*;  // in the layout
  Place place = nullptr;
  Floats<strip_rows> scales;

  SC_INLINE void open_strip(const Strips&, int64_t) {}
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t tile) {
    place = w.strip_scales(strip) + tile * tile_columns / group_step * strip_rows;
    scales = load_scales(place);
  }
};

// Sums of integers are all that there is of a group.
SC_INLINE Singles add_rest(Singles total, float, const Scale*) { return total; }

inline int64_t extra_bytes(const Weight&) { return 0; }
inline void write_extra(const Weight&, const Strips&, char*) {}

}  // namespace
