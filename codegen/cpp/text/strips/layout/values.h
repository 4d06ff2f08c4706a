// How values of W and activations meet: what both are where they are multiplied.

namespace {

// Integers by integers where both sides are and nothing but a row has scales; else pairs of
// bfloat16, which one instruction multiplies; everything else as floats.
#if defined(__AVX512VNNI__)
constexpr bool multiplies_integers = rounds_activations && group_columns == 0 && !skips;
#else
constexpr bool multiplies_integers = false;
#endif
#if defined(__AVX512BF16__)
constexpr bool multiplies_pairs = !multiplies_integers && std::is_same_v<Element, bfloat16>;
#else
constexpr bool multiplies_pairs = false;
#endif
using Activation = std::conditional_t<multiplies_integers, int8_t,
                                      std::conditional_t<multiplies_pairs, bfloat16, float>>;
// What W is multiplied as, and what the products are summed in.
using Operand = std::conditional_t<multiplies_integers, uint8_t, Activation>;
using Sum = std::conditional_t<multiplies_integers, int32_t, float>;
using Sums = Vector<Sum, strip_rows>;
constexpr int64_t operand_depth = multiplies_integers ? 4 : multiplies_pairs ? 2 : 1;

template <class To, class From>
SC_INLINE To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return from_float<To>(to_float(value));
  }
}

// Codes of one column of a vector of them, where `depth` share 32 bits, with others above them; alone.
SC_INLINE Words shifted_codes(Register codes, int byte) { return (Words)codes >> 32 / depth * byte; }
SC_INLINE Words code_of_byte(Register codes, int byte) {
  return shifted_codes(codes, byte) & ((1u << (value_bits & 31)) - 1);
}

// The integers nearest to a vector's elements of x over `scale`, ties to even.
SC_INLINE Register round_activations(const Element* x, float scale) {
  const Singles values = (Singles)load_floats<strip_rows>(x), scales = broadcast(scale);
  const Singles inverses = broadcast(1.0f / scale);
  // With the remainder's help the quotient is what a division would give (Markstein), but faster.
  const Singles near = values * inverses;
  const Singles remainders = fused_multiply_subtract(near, scales, values);
  return round_to_integers(fused_multiply_add(remainders, inverses, near));
}

// What is multiplied for a vector's elements of x; where these are rounded, integers times `scale`.
template <class Multiplied>
SC_INLINE void store_activations(const Element* x, float scale, Multiplied* out) {
  if constexpr (!rounds_activations) {
    for (int i = 0; i < strip_rows; ++i) out[i] = convert<Multiplied>(x[i]);
#if defined(__AVX512VNNI__)
  } else if constexpr (std::is_same_v<Multiplied, int8_t>) {
    store(out, low_bytes(round_activations(x, scale)));
#endif
  } else {
    const auto integers = (Ints<strip_rows>)round_activations(x, scale);
    float floats[strip_rows];
    store(floats, __builtin_convertvector(integers, Floats<strip_rows>));
    for (int i = 0; i < strip_rows; ++i) out[i] = convert<Multiplied>(floats[i]);
  }
}

// sums + a vector of W, `operand_depth` columns of it, times their activations.
SC_INLINE Sums multiply_expanded(Sums sums, Register w, const float* x) {
  return (Sums)fused_multiply_add((Singles)w, broadcast(*x), (Singles)sums);
}
#if defined(__AVX512BF16__)
SC_INLINE Sums multiply_expanded(Sums sums, __m512i w, const bfloat16* x) {
  const __m512i pair = _mm512_set1_epi32(load<int32_t>(x));
  return (Sums)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)pair);
}
#endif
#if defined(__AVX512VNNI__)
SC_INLINE Sums multiply_expanded(Sums sums, __m512i w, const int8_t* x) {
  const __m512i four = _mm512_set1_epi32(load<int32_t>(x));
  return (Sums)_mm512_dpbusd_epi32((__m512i)sums, w, four);
}
#endif

// `columns` elements of a row of x, with zeros up to a whole tile behind them.
class TileOfRow {
 public:
  SC_INLINE TileOfRow(const Element* x, int64_t columns) : x(x) {
    if (columns >= tile_columns) return;
    std::memset(padded, 0, sizeof padded);
    if (columns > 0) std::memcpy(padded, x, sizeof(Element) * columns);
    this->x = padded;
  }
  TileOfRow(const TileOfRow&) = delete;
  SC_INLINE const Element* data() const { return x; }

 private:
  const Element* x;
  Element padded[tile_columns];
};

inline int64_t padded_columns(int64_t k) { return ceil_div(k, tile_columns) * tile_columns; }

}  // namespace
