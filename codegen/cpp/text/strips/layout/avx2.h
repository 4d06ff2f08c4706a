// The layout `strips` in AVX2: a vector has a lane for each of eight rows.
#include <immintrin.h>

namespace {

static_assert(strip_rows == 8 && native_floats == 8);
using Register = __m256i;  // codes, or integers
using Singles = __m256;

// Sums that registers hold beside what few rows of x need.
constexpr int sums_in_registers = 8;
// Of many rows: how many are multiplied together as integers, with how many strips.
constexpr int rows_together = 4, strips_together = 2;
// How many strips of a chunk are multiplied at once, and with how many rows.
constexpr int strips_at_once = 3;
constexpr int rows_at_once(int strips) { return strips == 1 ? 8 : 4; }

// Loaded once: GCC would load it again for every product, and permutations of 32 bits take twice as long
// of memory as of registers.
SC_INLINE Register load_once(const void* from) {
  Register loaded = load<Register>(from);
  asm("" : "+x"(loaded));
  return loaded;
}
SC_INLINE Singles broadcast(float value) { return _mm256_set1_ps(value); }
SC_INLINE Singles fused_multiply_add(Singles a, Singles b, Singles c) {
  return _mm256_fmadd_ps(a, b, c);
}
// c - a * b, rounded once.
SC_INLINE Singles fused_multiply_subtract(Singles a, Singles b, Singles c) {
  return _mm256_fnmadd_ps(a, b, c);
}
// The nearest integers, ties to even.
SC_INLINE Register round_to_integers(Singles values) { return _mm256_cvtps_epi32(values); }
// The lower 16 bits of every lane of one, and the upper ones of the other.
SC_INLINE Register with_upper_words(Register lower, Register upper) {
  return _mm256_blend_epi16(lower, upper, 0xaa);
}
SC_INLINE Singles widen_halves(Register codes) {
  return _mm256_cvtph_ps(_mm256_castsi256_si128(codes));
}
SC_INLINE Register narrow_to_halves(Singles values) {
  return _mm256_castsi128_si256(_mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

// For every mask of eight places: which of the codes that are kept, close together, a place has, as
// `width` bytes a code; `none` where it has no code.
template <int width, uint8_t none>
struct Expansions {
  alignas(32) uint8_t of[256][8 * width] = {};
  constexpr Expansions() {
    for (int mask = 0; mask < 256; ++mask)
      for (int place = 0, kept = 0; place < 8; ++place) {
        const bool is_kept = mask >> place & 1;
        for (int byte = 0; byte < width; ++byte)
          of[mask][place * width + byte] =
              is_kept ? static_cast<uint8_t>(kept * width + byte) : none;
        kept += is_kept;
      }
  }
};
constexpr uint8_t no_code = 0x80;  // a byte shuffle gives zero
constexpr Expansions<1, no_code> byte_expansions;
constexpr Expansions<2, no_code> word_expansions;

SC_INLINE Register join(__m128i low, __m128i high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

SC_INLINE Register expand_floats(uint8_t mask, const char* at) {
  const __m128i bytes = _mm_cvtsi64_si128(load<int64_t>(byte_expansions.of[mask]));
  const Register places = _mm256_cvtepi8_epi32(bytes);
  const Register codes = _mm256_permutevar8x32_epi32(load_once(at), places);
  return _mm256_andnot_si256(_mm256_srai_epi32(places, 31), codes);
}

SC_INLINE __m128i expand_eight_words(uint8_t mask, const char* at) {
  return _mm_shuffle_epi8(load<__m128i>(at), load<__m128i>(word_expansions.of[mask]));
}

// Sixteen of them, eight at a time.
SC_INLINE __m128i expand_sixteen_bytes(uint16_t mask, const char* at) {
  const auto expand = [](uint8_t part, const char* from) SC_INLINED {
    const __m128i places = _mm_cvtsi64_si128(load<int64_t>(byte_expansions.of[part]));
    return _mm_shuffle_epi8(_mm_cvtsi64_si128(load<int64_t>(from)), places);
  };
  const uint8_t low = static_cast<uint8_t>(mask), high = static_cast<uint8_t>(mask >> 8);
  return _mm_unpacklo_epi64(expand(low, at), expand(high, at + __builtin_popcount(low)));
}

// What is missing becomes zero, and zero stands for `cut` while it does.
SC_INLINE Register expand_bytes(uint32_t mask, const char* at) {
  const Register cuts = _mm256_set1_epi8(static_cast<char>(cut));
  alignas(32) char codes[64];
  _mm256_store_si256(reinterpret_cast<Register*>(codes), _mm256_xor_si256(load<Register>(at), cuts));
  const uint16_t low = static_cast<uint16_t>(mask), high = static_cast<uint16_t>(mask >> 16);
  const __m128i first = expand_sixteen_bytes(low, codes);
  const __m128i second = expand_sixteen_bytes(high, codes + __builtin_popcount(low));
  return _mm256_xor_si256(join(first, second), cuts);
}

// 32 codes a byte each, from two a byte.
SC_INLINE Register unpack_halves(__m128i bytes) {
  const Register words = _mm256_cvtepu8_epi16(bytes);
  const Register both = _mm256_or_si256(words, _mm256_slli_epi16(words, 4));
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// A vector of codes, of which all are there. Columns of a lane share its 32 bits.
SC_INLINE Register load_codes(const char* at) {
  if constexpr (value_bits == 4) return unpack_halves(load<__m128i>(at));
  if constexpr (value_bits == 8 && depth == 2) return _mm256_cvtepu8_epi16(load<__m128i>(at));
  return load<Register>(at);
}
// Vectors of codes that share bytes.
SC_INLINE Register load_several(const char* at) {
  if constexpr (depth == 2) return _mm256_cvtepu8_epi16(load<__m128i>(at));
  return load<Register>(at);
}

// A vector of codes, of which those in the mask are there, and `cut` in the place of the others.
SC_INLINE Register expand_codes(Mask mask, const char* at) {
  if constexpr (value_bits == 32) {
    return expand_floats(mask, at);
  } else if constexpr (value_bits == 16 && codes_per_vector == 8) {
    return _mm256_castsi128_si256(expand_eight_words(mask, at));
  } else if constexpr (value_bits == 16) {
    const uint8_t low = static_cast<uint8_t>(mask), high = static_cast<uint8_t>(mask >> 8);
    const char* rest = at + sizeof(Code) * __builtin_popcount(low);
    return join(expand_eight_words(low, at), expand_eight_words(high, rest));
  } else if constexpr (value_bits == 8) {
    return expand_bytes(mask, at);
  } else {
    char codes[32];
    store(codes, load_codes(at));
    return expand_bytes(mask, codes);
  }
}

// One column of a vector of integers as floats, less what codes are above them.
template <int above = static_cast<int>(cut)>
SC_INLINE Singles integers_of(Register codes, int column) {
  constexpr int bits = 32 / depth;
  const Register shifted = _mm256_srli_epi32(codes, bits * column);
  const Register low = _mm256_set1_epi32(static_cast<int>(~0u >> (32 - bits)));
  const Register alone = column == depth - 1 ? shifted : _mm256_and_si256(shifted, low);
  return _mm256_sub_ps(_mm256_cvtepi32_ps(alone), _mm256_set1_ps(above));
}

// Entries of a table of a power of two of floats, sixteen at least.
template <int size>
SC_INLINE Singles look_up_floats(const float* table, Register index) {
  if constexpr (size == 16) {
    const __m256 low = _mm256_permutevar8x32_ps(load<__m256>(table), index);
    const __m256 high = _mm256_permutevar8x32_ps(load<__m256>(table + 8), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  int32_t places[8];
  store(places, index);
  return (Singles)gather<8>(table, places);
}
SC_INLINE Register twice_as_halves(const float*) { return Register{}; }

// What a table of eight has for every lane: of an index only the lowest three bits count.
SC_INLINE Register look_up(const uint32_t* table, Register index) {
  return _mm256_permutevar8x32_epi32(load_once(table), index);
}

// Of every kind of pair: its columns in two bits each, or where 16 bits of each begin and end.
struct PlacesOfPair {
  alignas(32) uint32_t columns[8] = {}, bytes[8] = {};
  constexpr PlacesOfPair() {
    for (int kind = 0; kind < pair_kinds; ++kind) {
      const uint32_t first = first_of_pair[kind], second = second_of_pair[kind];
      columns[kind] = first | second << 2;
      bytes[kind] = first * 0x0202 + 0x0100 | (second * 0x0202 + 0x0100) << 16;
    }
  }
};
constexpr PlacesOfPair places_of_pair;

// Of which columns the pairs of a tile's next vector were kept, four columns of x at a time.
struct KeptColumns {
  Register kinds;   // of the pairs behind it, the next one's lowest
  Register kind;    // of its pairs
  Register places;  // of its first column among the four

  SC_INLINE void open_tile(const char* head) { kinds = load<Register>(head); }
  SC_INLINE void next(int v) {
    if (depth == 1 && v % 2) {
      places = _mm256_srli_epi32(places, 2);
      return;
    }
    kind = kinds;
    kinds = _mm256_srli_epi32(kinds, 4);
    places = look_up(places_of_pair.columns, kind);
  }
};

// Where a tile's vector finds its activations, from the tile's first: where columns were kept, those
// of its group.
SC_INLINE constexpr int first_activation(int v) {
  return paired ? v * depth / 2 * group_columns_of_pair : v * depth;
}

// What a vector's column `c` is multiplied with: one of four activations for each lane.
SC_INLINE Singles activations_of(const KeptColumns& kept, const float* x, int c) {
  if constexpr (!paired) return broadcast(x[c]);
  const Singles four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(x));
  return _mm256_permutevar_ps(four, c ? _mm256_srli_epi32(kept.places, 2) : kept.places);
}

// For every mask of what is missing of eight: the places of the others.
struct Compressions {
  alignas(64) uint8_t of[256][8] = {};
  constexpr Compressions() {
    for (int missing = 0; missing < 256; ++missing)
      for (int place = 0, kept = 0; place < 8; ++place)
        if (!(missing >> place & 1)) of[missing][kept++] = static_cast<uint8_t>(place);
  }
};
constexpr Compressions compressions;

// The words that are not zero, close together, and their places, counted from `first`; how many they are.
SC_INLINE int compress(Register words, int first, void* kept, uint8_t* places) {
  const Register zeros = _mm256_cmpeq_epi32(words, _mm256_setzero_si256());
  const auto missing = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(zeros)));
  const auto found = load<uint64_t>(compressions.of[missing]);
  const Register from = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(found)));
  store(kept, _mm256_permutevar8x32_epi32(words, from));
  store(places, found + 0x0101010101010101u * static_cast<uint64_t>(first));
  return 8 - __builtin_popcount(missing);
}

}  // namespace
