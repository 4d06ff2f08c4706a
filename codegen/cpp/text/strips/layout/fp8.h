// What codes have in common, where they are floats of 8 bits.

namespace {

constexpr bool has_zero = false;  // what is not kept is told from what is
SC_INLINE constexpr int column_of_byte(int byte) { return byte; }

struct OfGroup {
  Singles scale;

  SC_INLINE void open_strip(const Strips&, int64_t) {}
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t tile) {
    if constexpr (has_scales) {
      const Scale* from = w.strip_scales(strip) + tile * tile_columns / group_step * strip_rows;
      scale = (Singles)load_floats<strip_rows>(from);
    }
  }
};

// Values of one column of a vector of codes, in float32.
SC_INLINE Singles decoded(const OfGroup& group, Register codes, int column) {
  const auto bytes = (Ints<strip_rows>)code_of_byte(codes, column);
  const Singles number = (Singles)widen_small<Floats<strip_rows>>(bytes);
  return has_scales ? number * group.scale : number;
}

inline int64_t extra_bytes(const Weight&) { return 0; }
inline void write_extra(const Weight&, const Strips&, char*) {}

}  // namespace
