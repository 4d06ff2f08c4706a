// What codes have in common, where they are places in a table: of the whole weight, or each strip has one.

namespace {

constexpr bool has_zero = false;  // what is not kept is told from what is
constexpr int table_size = code_width < 4 ? 16 : 1 << code_width;
// Then pairs of columns are looked up at once, each by the lower byte of 16 bits.
constexpr bool looks_up_pairs = table_size == 16;
SC_INLINE constexpr int column_of_byte(int byte) {
  return looks_up_pairs && depth == 4 && (byte == 1 || byte == 2) ? 3 - byte : byte;
}

struct OfGroup {
  const float* table = nullptr;
  Register pairs;  // the same in bfloat16, twice
  Singles scale;

  SC_INLINE void open_strip(const Strips& w, int64_t strip) {
    table = reinterpret_cast<const float*>(w.extra) + (tables_of_strips ? strip * table_size : 0);
    if constexpr (looks_up_pairs) pairs = twice_as_halves(table);
  }
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t tile) {
    if constexpr (has_scales) {
      const Scale* from = w.strip_scales(strip) + tile * tile_columns / group_step * strip_rows;
      scale = (Singles)load_floats<strip_rows>(from);
    }
  }
};

// Values of one column of a vector of codes, in float32.
SC_INLINE Singles decoded(const OfGroup& group, Register codes, int column) {
  const int byte = column_of_byte(column);  // it is its own inverse
  const Words places = table_size == 16 ? shifted_codes(codes, byte) : code_of_byte(codes, byte);
  const Singles number = look_up_floats<table_size>(group.table, (Register)places);
  return has_scales ? number * group.scale : number;
}

// Tables [strips or one][table_size].
inline int64_t extra_bytes(const Weight& w) {
  return sizeof(float) * table_size * (tables_of_strips ? ceil_div(w.n, strip_rows) : 1);
}
inline void write_extra(const Weight& w, const Strips& to, char* extra) {
  float* out = reinterpret_cast<float*>(extra);
  for (int64_t strip = 0; strip < (tables_of_strips ? to.strips : 1); ++strip, out += table_size)
    for (int i = 0; i < 1 << code_width; ++i) out[i] = to_float(table_of(w, strip * strip_rows)[i]);
}

}  // namespace
