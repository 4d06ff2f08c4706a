// Paired tiles times pairs of bfloat16, in AVX-512.

namespace {

constexpr int64_t tiles_at_once = step_tiles;

// A tile of W as it is multiplied, and as streams of bfloat16 have it: the kinds of a lane's pairs,
// four bits each, the first lowest, and the pairs.
struct Kept {
  uint32_t kinds[strip_rows];
  uint32_t values[tile_groups][strip_rows];
};
constexpr bool stream_is_kept = value_bits == 16;
static_assert(!stream_is_kept || sizeof(Kept) == tile_bytes);

// The next tile of a reader: a vector has one group, or, of integers, two.
SC_INLINE void expand_kept(Reader& reader, Kept* tiles, int64_t tile) {
  Kept& out = tiles[tile];
  if constexpr (depth == 2) {
    std::memcpy(out.kinds, reader.head, head_bytes);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const __m512i codes = reader.next(v);
      store(out.values[v], pairs_of(reader, codes, 0));
    }
  } else if constexpr (!stream_is_kept) {
    const __m512i lower = _mm512_set1_epi32(0xf);
    __m512i kinds = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int g = 0; g < tile_groups; ++g) {
      const __m512i kind = _mm512_and_si512(_mm512_srli_epi32(reader.kept.kinds, kind_shift(g)), lower);
      kinds = _mm512_or_si512(kinds, _mm512_slli_epi32(kind, 4 * g));
    }
    store(out.kinds, kinds);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const __m512i codes = reader.next(v);
      store(out.values[2 * v], pairs_of(reader, codes, 0));
      store(out.values[2 * v + 1], pairs_of(reader, codes, 2));
    }
  }
}

// sums [16][width] of a strip (+)= the pairs of its tiles times those of x that they name.
template <int vectors_of_x>
SC_INLINE void multiply_strip(const Kept* tiles, int64_t count, const char* kinds, bool begins,
                              float* sums) {
  constexpr int rows = vectors_of_x == 4 ? 4 : 8, width = vectors_of_x * lanes;
  constexpr uint64_t place_bits = 7 * kind_bytes;
  constexpr int place_shift = __builtin_ctzll(kind_bytes);
  for (int first = 0; first < strip_rows; first += rows) {
    __m512 total[rows][vectors_of_x];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_of_x; ++v) total[r][v] = _mm512_setzero_ps();
    const char* group = kinds;
    for (int64_t t = 0; t < count; ++t) {
      const Kept& tile = tiles[t];
      uint64_t two_kinds[rows / 2];  // of two rows
#pragma GCC unroll 4
      for (int r = 0; r < rows; r += 2) two_kinds[r / 2] = load<uint64_t>(tile.kinds + first + r);
      for (int64_t g = 0; g < tile_groups; ++g, group += group_bytes) {
#pragma GCC unroll 2
        for (int quad = 0; quad < rows; quad += 4) {
          // Four rows by one load: what is read is what binds.
          const __m512i four = _mm512_broadcast_i32x4(load<__m128i>(tile.values[g] + first + quad));
          const __m512i each[] = {_mm512_shuffle_epi32(four, _MM_PERM_AAAA),
                                  _mm512_shuffle_epi32(four, _MM_PERM_BBBB),
                                  _mm512_shuffle_epi32(four, _MM_PERM_CCCC),
                                  _mm512_shuffle_epi32(four, _MM_PERM_DDDD)};
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) {
            const uint64_t kind = two_kinds[(quad + r) / 2];
            const char* x = group + ((r % 2 ? kind >> (32 - place_shift) : kind << place_shift) & place_bits);
#pragma GCC unroll 4
            for (int v = 0; v < vectors_of_x; ++v) {
              __m512& sum = total[quad + r][v];
              sum = _mm512_dpbf16_ps(sum, (__m512bh)each[r],
                                     (__m512bh)load<__m512i>(x + v * sizeof(__m512i)));
            }
          }
        }
#pragma GCC unroll 4
        for (uint64_t& kind : two_kinds) kind >>= 4;
      }
    }
    float* to = sums + first * width;
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_of_x; ++v, to += lanes)
        store(to, begins ? total[r][v] : _mm512_add_ps(load<__m512>(to), total[r][v]));
  }
}

}  // namespace
