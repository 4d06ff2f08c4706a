// Reads vectors of codes of the layout `strips`, where these are no floats. Before it comes
// `OfGroup`: what the codes of a group of columns have in common.

namespace {

// The lowest bits of every byte: a code.
SC_INLINE Register lowest_bits(Register bytes) {
  return (Register)((Vector<uint8_t, sizeof(Register)>)bytes & ((1 << value_bits) - 1));
}

// Codes with all bits set.
struct EveryCode {
  alignas(64) char of[64] = {};
  constexpr EveryCode() {
    for (char& byte : of) byte = -1;
  }
};
constexpr EveryCode every_code;

// Reads the vectors of a strip one after the other.
struct Reader {
  const char* at = nullptr;
  const char* head = nullptr;
  OfGroup group;     // of the tile's columns
  Register several;  // vectors that share bytes
  Register there;    // ones where a code was kept; only where no code stands for zero
  KeptColumns kept;
  Lookahead ahead;

  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    at = w.stream + w.offsets[strip];
    ahead.open_strip(w, strip, next, last);
    group.open_strip(w, strip);
  }
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t place) {
    ahead.open_tile(at);
    head = at;
    at += head_bytes;
    if constexpr (paired) kept.open_tile(head);
    group.open_tile(w, strip, place);
  }
  // The codes of the tile's next vector, `v`, `cut` where nothing was kept.
  SC_INLINE Register next(int v) {
    if constexpr (paired) kept.next(v);
    if constexpr (vectors_of_bytes > 1) {
      const int part = v % vectors_of_bytes;
      if (part > 0) return lowest_bits((Register)((Words)several >> value_bits * part));
      ahead.fetch(at);
      several = load_several(at);
      at += vectors_of_bytes * vector_bytes;
      return lowest_bits(several);
    }
    ahead.fetch(at);
    const char* from = at;
    if constexpr (!masked) {
      at += vector_bytes;
      return load_codes(from);
    } else {
      const Mask mask = load<Mask>(head + v * sizeof(Mask));
      at += bytes_of(__builtin_popcountll(mask));
      if constexpr (!has_zero) there = expand_codes(mask, every_code.of);
      return expand_codes(mask, from);
    }
  }
};

// Scales of a strip, lanes side by side; lanes without a row have none.
template <class Tensors>
inline void write_scales(const Tensors& w, int64_t strip, Scale* out) {
  if constexpr (has_scales) {
    const int64_t groups = scale_groups(w.k);
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t lane = 0; lane < strip_rows; ++lane) {
        const int64_t row = strip * strip_rows + lane;
        *out++ = row < w.n ? w.scales[row * groups + group] : Scale{};
      }
  }
}

}  // namespace
