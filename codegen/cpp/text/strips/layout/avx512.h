// The layout `strips` in AVX-512: a vector has a lane for each of sixteen rows.
#include <immintrin.h>

namespace {

static_assert(strip_rows == 16 && native_floats == 16);
using Register = __m512i;  // codes, or integers
using Singles = __m512;

// See avx2.h.
constexpr int sums_in_registers = 16;
constexpr int rows_together = 8, strips_together = 1;
constexpr int strips_at_once = 2;
constexpr int rows_at_once(int) { return 8; }

SC_INLINE Register load_once(const void* from) { return load<Register>(from); }
SC_INLINE Singles broadcast(float value) { return _mm512_set1_ps(value); }
SC_INLINE Singles fused_multiply_add(Singles a, Singles b, Singles c) {
  return _mm512_fmadd_ps(a, b, c);
}
// c - a * b, rounded once.
SC_INLINE Singles fused_multiply_subtract(Singles a, Singles b, Singles c) {
  return _mm512_fnmadd_ps(a, b, c);
}
// The nearest integers, ties to even.
SC_INLINE Register round_to_integers(Singles values) { return _mm512_cvtps_epi32(values); }
SC_INLINE __m128i low_bytes(Register integers) { return _mm512_cvtepi32_epi8(integers); }
// The lower 16 bits of every lane of one, and the upper ones of the other.
SC_INLINE Register with_upper_words(Register lower, Register upper) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, lower, upper);
}
SC_INLINE Singles widen_halves(Register codes) {
  return _mm512_cvtph_ps(_mm512_castsi512_si256(codes));
}
SC_INLINE Register narrow_to_halves(Singles values) {
  return _mm512_castsi256_si512(_mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

#if defined(__AVX512BF16__)
// Two vectors of floats as pairs of bfloat16, lane by lane, rounded to nearest.
SC_INLINE __m512i side_by_side(__m512 first, __m512 second) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  const Vector<uint16_t, 32> order = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16((__m512i)order, both);
}
#endif

#if defined(__AVX512VBMI2__)
SC_INLINE __m512i expand_words(__mmask32 mask, __m512i words) {
  return _mm512_maskz_expand_epi16(mask, words);
}
SC_INLINE __m512i expand_bytes(__mmask64 mask, __m512i bytes) {
  return _mm512_mask_expand_epi8(_mm512_set1_epi8(static_cast<char>(cut)), mask, bytes);
}
#else
// Words are widened, expanded in two halves and narrowed again.
SC_INLINE __m512i expand_words(__mmask32 mask, __m512i words) {
  const __mmask16 low = static_cast<__mmask16>(mask), high = static_cast<__mmask16>(mask >> 16);
  alignas(64) uint16_t list[48];
  _mm512_store_si512(list, words);
  const auto half = [](__mmask16 part, const uint16_t* from) SC_INLINED {
    const __m512i wide = _mm512_cvtepu16_epi32(load<__m256i>(from));
    return _mm512_cvtepi32_epi16(_mm512_maskz_expand_epi32(part, wide));
  };
  const __m256i first = half(low, list);
  const __m256i second = half(high, list + __builtin_popcount(low));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}
#endif

// 64 codes a byte each, from two a byte.
SC_INLINE __m512i unpack_halves(__m256i bytes) {
  const __m512i words = _mm512_cvtepu8_epi16(bytes);
  const __m512i both = _mm512_or_si512(words, _mm512_slli_epi16(words, 4));
  return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

// A vector of codes, of which all are there.
SC_INLINE Register load_codes(const char* at) {
  if constexpr (value_bits == 4) return unpack_halves(load<__m256i>(at));
  if constexpr (value_bits == 8 && depth == 2) return _mm512_cvtepu8_epi16(load<__m256i>(at));
  return load<Register>(at);
}
// Vectors of codes that share bytes.
SC_INLINE Register load_several(const char* at) {
  if constexpr (depth == 2) return _mm512_cvtepu8_epi16(load<__m256i>(at));
  return load<Register>(at);
}

// A vector of codes, of which those in the mask are there, and `cut` in the place of the others.
SC_INLINE Register expand_codes(Mask mask, const char* at) {
  const Register codes = load_codes(at);
  if constexpr (value_bits == 32) {
    return _mm512_maskz_expand_epi32(mask, codes);
  } else if constexpr (value_bits == 16) {
    return expand_words(mask, codes);
#if defined(__AVX512VBMI2__)
  } else {
    return expand_bytes(mask, codes);
#endif
  }
}

// One column of a vector of integers as floats, less what codes are above them.
template <int above = static_cast<int>(cut)>
SC_INLINE Singles integers_of(Register codes, int column) {
  constexpr int bits = depth < 4 ? 32 / depth : 8;
  const __m512i shifted = _mm512_srli_epi32(codes, bits * column);
  if constexpr (value_bits == 4) {
    const Floats<16> values = iota<float, 16>() - static_cast<float>(above);
    // Of an index only the lowest four bits count.
    return _mm512_permutexvar_ps(shifted, (__m512)values);
  } else {
    // An integer in the mantissa of 2^23: no conversion, and the difference is exact.
    const __m512i exponent = _mm512_set1_epi32(0x4b000000);
    const __m512i bytes = _mm512_set1_epi32(255);
    const __m512i joined = _mm512_ternarylogic_epi32(shifted, bytes, exponent, 0xea);
    return _mm512_sub_ps(_mm512_castsi512_ps(joined), _mm512_set1_ps(0x1p23f + above));
  }
}

// Entries of a table of a power of two of floats, sixteen at least.
template <int size>
SC_INLINE Singles look_up_floats(const float* table, Register index) {
  if constexpr (size == 16) return _mm512_permutexvar_ps(index, load<__m512>(table));
  int32_t places[16];
  store(places, index);
  return (Singles)gather<16>(table, places);
}

// Sixteen floats as bfloat16, twice one after the other: of an index of sixteen only four bits count.
SC_INLINE Register twice_as_halves(const float* table) {
  bfloat16 halves[32];
  for (int i = 0; i < 32; ++i) halves[i] = from_float<bfloat16>(table[i % 16]);
  return load<Register>(halves);
}

// The columns of every kind of pair side by side, for instructions that look them up by words of
// which they see more than the lowest three bits.
template <class Word, int words>
struct ColumnsOfPair {
  alignas(64) Word of[words] = {};
  constexpr ColumnsOfPair() {
    for (int i = 0; i < words; ++i)
      if (i % 8 < pair_kinds)
        of[i] = static_cast<Word>(first_of_pair[i % 8] | second_of_pair[i % 8] << 4 * sizeof(Word));
  }
};
constexpr ColumnsOfPair<uint32_t, 16> words_of_pair;
constexpr ColumnsOfPair<uint16_t, 32> bytes_of_pair;

// What a table of sixteen has for every lane: of an index only the lowest four bits count.
SC_INLINE Register look_up(const uint32_t* table, Register index) {
  return _mm512_permutexvar_epi32(index, load<Register>(table));
}

// Where values are floats, of every kind of pair: its columns in two bits each.
struct PlacesOfPair {
  alignas(64) uint32_t columns[16] = {};
  constexpr PlacesOfPair() {
    for (int kind = 0; kind < pair_kinds; ++kind)
      columns[kind] = first_of_pair[kind] | second_of_pair[kind] << 2;
  }
};
constexpr PlacesOfPair places_of_pair;

// The columns of a tile that the pairs of its next vector were kept of: of 16 bits each, or, where
// two groups of columns share a vector, of 8 bits; of floats, which of four that of its values was.
struct KeptColumns {
  Register pairs;
  Register kinds;  // those of the next vector lowest
  Register group;  // its first column, as often as a lane has columns

  SC_INLINE void open_tile(const char* head) {
    kinds = load<Register>(head);
    group = depth == 4 ? _mm512_set1_epi32(group_columns_of_pair << 16 | group_columns_of_pair << 24)
                       : _mm512_setzero_si512();
  }
  SC_INLINE void next(int v) {
    if constexpr (depth == 1) {
      if (v % 2) {
        pairs = _mm512_srli_epi32(pairs, 2);
        return;
      }
      pairs = look_up(places_of_pair.columns, kinds);
    } else if constexpr (depth == 4) {
      // Of an index only the lowest five bits count, and the table is there twice.
      const __m512i columns = _mm512_permutexvar_epi16(kinds, load<__m512i>(bytes_of_pair.of));
      pairs = _mm512_add_epi8(columns, group);
      group = _mm512_add_epi8(group, _mm512_set1_epi8(2 * group_columns_of_pair));
    } else {
      const __m512i columns = look_up(words_of_pair.of, kinds);
      pairs = _mm512_add_epi16(columns, group);
      group = _mm512_add_epi16(group, _mm512_set1_epi16(group_columns_of_pair));
    }
    kinds = _mm512_srli_epi32(kinds, 4);
  }
};

// Where a tile's vector finds its activations, from the tile's first: where columns were kept, they
// count from there, those of floats from the first of four.
SC_INLINE constexpr int first_activation(int v) {
  if (paired) return depth == 1 ? v / 2 * group_columns_of_pair : 0;
  return v * depth;
}

// What a vector's column `c` is multiplied with. Pairs are multiplied as such.
SC_INLINE Singles activations_of(const KeptColumns& kept, const float* x, int c) {
  if constexpr (!paired || depth != 1) return broadcast(x[c]);
  return _mm512_permutevar_ps(_mm512_broadcast_f32x4(load<__m128>(x)), kept.pairs);
}

// The words that are not zero, close together, and their places, counted from `first`; how many they are.
SC_INLINE int compress(Register words, int first, void* kept, uint8_t* places) {
  const __mmask16 mask = _mm512_test_epi32_mask(words, words);
  const __m512i all = _mm512_add_epi32((__m512i)iota<int32_t, 16>(), _mm512_set1_epi32(first));
  store(kept, _mm512_maskz_compress_epi32(mask, words));
  store(places, _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(mask, all)));
  return __builtin_popcount(mask);
}

}  // namespace
