// Vectors of float values of the layout `strips`, and products with activations.

namespace {

// Reads the vectors of a strip one after the other.
struct Reader {
  const char* at = nullptr;
  const char* head = nullptr;
  KeptColumns kept;
  Lookahead ahead;

  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    at = w.stream + w.offsets[strip];
    ahead.open_strip(w, strip, next, last);
  }
  SC_INLINE void open_tile(const Strips&, int64_t, int64_t) {
    ahead.open_tile(at);
    head = at;
    at += head_bytes;
    if constexpr (paired) kept.open_tile(head);
  }
  // The codes of the tile's next vector, `v`, zero where nothing was kept.
  SC_INLINE Register next(int v) {
    ahead.fetch(at);
    if constexpr (paired) kept.next(v);
    const char* from = at;
    if constexpr (!masked) {
      at += vector_bytes;
      return load_codes(from);
    } else {
      const Mask mask = load<Mask>(head + v * sizeof(Mask));
      at += sizeof(Code) * __builtin_popcount(mask);
      return expand_codes(mask, from);
    }
  }
};

// Floats of one column of a vector: `column` counts inside it.
SC_INLINE Singles floats_of(Register codes, int column) {
  if constexpr (std::is_same_v<Element, float>) {
    return (Singles)codes;
  } else if constexpr (std::is_same_v<Element, float16>) {
    return widen_halves(codes);
  } else {
    return (Singles)(column ? (Words)codes & 0xffff0000 : (Words)codes << 16);
  }
}

template <class Out>
inline Out element_of(const Strips&, Code value, int64_t, int64_t) {
  return convert<Out>(bit_cast<Element>(value));
}

constexpr bool has_zero = true;
SC_INLINE constexpr int column_of_byte(int column) { return column; }
inline void write_scales(const Weight&, int64_t, Scale*) {}
inline int64_t extra_bytes(const Weight&) { return 0; }
inline void write_extra(const Weight&, const Strips&, char*) {}

// An expanded vector, as the loops over many rows of x multiply it.
SC_INLINE void store_expanded(const Reader&, Register codes, bfloat16* out) { store(out, codes); }
SC_INLINE void store_expanded(const Reader&, Register codes, float* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c) store(out + c * strip_rows, floats_of(codes, c));
}

// Values have no scales that remain for the end.
SC_INLINE Floats<strip_rows> scale_sums(const Strips&, int64_t, Floats<strip_rows> sums) {
  return sums;
}

constexpr bool defers_scales = false;
SC_INLINE Sums scale_tile(const Reader&, Sums sums) { return sums; }

// sum + vector times its activations.
SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, Register codes, const float* x) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    sum = (Sums)fused_multiply_add(floats_of(codes, c), activations_of(reader.kept, x, c),
                                   (Singles)sum);
  return sum;
}

#if defined(__AVX512BF16__)
SC_INLINE Register pairs_of(const Reader&, Register codes, int) { return codes; }

SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, Register codes, const bfloat16* x) {
  if constexpr (!paired) return multiply_expanded(sum, codes, x);
  const __m512i pairs = _mm512_permutexvar_epi16(reader.kept.pairs, load<__m512i>(x));
  return (Sums)_mm512_dpbf16_ps((__m512)sum, (__m512bh)codes, (__m512bh)pairs);
}
#endif

}  // namespace
