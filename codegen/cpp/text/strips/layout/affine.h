// What codes have in common, where they are integers that are decoded before they are multiplied: a value
// is the scale of its group of columns times its code, and what the code 0 stands for more.

namespace {

constexpr bool has_zero = false;  // no code stands for zero
constexpr int32_t code_middle = 1 << (code_width - 1);  // what is taken off codes before scales
SC_INLINE constexpr int column_of_byte(int byte) { return byte; }

SC_INLINE Singles load_offsets(const uint8_t* from) {
  return (Singles)__builtin_convertvector(load<Vector<uint8_t, strip_rows>>(from), Floats<strip_rows>);
}
template <class Float>
SC_INLINE Singles load_offsets(const Float* from) {
  return (Singles)load_floats<strip_rows>(from);
}

struct OfGroup {
  struct Place {
    const Scale* scales = nullptr;
    const Offset* offsets = nullptr;
  };
  Place place;  // in the layout
  Singles scale, least;

  SC_INLINE void open_strip(const Strips&, int64_t) {}
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t tile) {
    const int64_t at = (strip * w.groups() + tile * tile_columns / group_step) * strip_rows;
    place = {w.scales + at, reinterpret_cast<const Offset*>(w.extra) + at};
    // What the strip that is read next has for the same columns.
    const int64_t next = decode_streams * w.groups() * strip_rows;
    __builtin_prefetch(place.scales + next, 0, 2);
    __builtin_prefetch(place.offsets + next, 0, 2);
    scale = (Singles)load_floats<strip_rows>(place.scales);
    least = value_of(place, 0);
  }
  // What a code stands for.
  static SC_INLINE Singles value_of(const Place& place, int32_t code) {
    const Singles scale = (Singles)load_floats<strip_rows>(place.scales), number = broadcast(code);
    if constexpr (offset_kind == Offsets::minima)
      return fused_multiply_add(number, scale, load_offsets(place.offsets));
    if constexpr (offset_kind == Offsets::zero_points)
      return (number - load_offsets(place.offsets)) * scale;
    return (number - broadcast(code_middle)) * scale;
  }
};

SC_INLINE Floats<strip_rows> load_scales(const OfGroup::Place& place) {
  return load_floats<strip_rows>(place.scales);
}

// What sums of integers without their middle are short of: as often as the sum of x says.
SC_INLINE Singles add_rest(Singles total, float sum_of_x, const OfGroup::Place& place) {
  if constexpr (offset_kind == Offsets::none) return total;
  return fused_multiply_add(broadcast(sum_of_x), OfGroup::value_of(place, code_middle), total);
}

// Values of one column of a vector of codes, in float32.
SC_INLINE Singles decoded(const OfGroup& group, Register codes, int column) {
  return fused_multiply_add(integers_of<0>(codes, column), group.scale, group.least);
}

// Offsets [strips][groups][strip_rows].
inline int64_t extra_bytes(const Weight& w) {
  if constexpr (offset_kind == Offsets::none) return 0;
  return sizeof(Offset) * ceil_div(w.n, strip_rows) * scale_groups(w.k) * strip_rows;
}
inline void write_extra(const Weight& w, const Strips& to, char* extra) {
  if constexpr (offset_kind == Offsets::none) return;
  Offset* out = reinterpret_cast<Offset*>(extra);
  for (int64_t row = 0; row < w.n; ++row)
    for (int64_t group = 0; group < to.groups(); ++group) {
      const int64_t at = (row / strip_rows * to.groups() + group) * strip_rows + row % strip_rows;
      out[at] = offsets_of(w)[row * to.groups() + group];
    }
}

}  // namespace
