// What the instructions of AVX-512 and AMX compute that generated kernels use, lane by lane, for CPUs that
// have AVX2: included before a kernel it takes the place of the intrinsics. EMULATED_LEVEL is a level of
// `ISA_LEVELS` from avx512 on, as a number: 0 avx512, 1 avx512_bf16, 2 amx.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

// Intel's headers are included: what the kernel's text asks for from here on is what is emulated.
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1
#if EMULATED_LEVEL > 0
#define __AVX512VNNI__ 1
#define __AVX512BF16__ 1
#define __AVX512VBMI__ 1
#define __AVX512VBMI2__ 1
#endif
#if EMULATED_LEVEL > 1
#define __AMX_TILE__ 1
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
#endif

namespace emulated {

// A register as lanes of one type; `lane(i)` is what an instruction computes for each.
template <class Lane>
struct Lanes {
  static constexpr int count = 64 / sizeof(Lane);
  alignas(64) Lane of[count];

  template <class Register>
  explicit Lanes(Register from) {
    static_assert(sizeof from == 64);
    std::memcpy(of, &from, 64);
  }
  Lane operator[](int i) const { return of[i]; }
};
template <class Register, class Lane, class Compute>
inline Register make(Compute&& lane) {
  constexpr int count = sizeof(Register) / sizeof(Lane);
  Lane lanes[count];
  for (int i = 0; i < count; ++i) lanes[i] = static_cast<Lane>(lane(i));
  Register result;
  std::memcpy(&result, lanes, sizeof result);
  return result;
}
template <class Lane, class Compute>
inline __m512i integers(Compute&& lane) { return make<__m512i, Lane>(lane); }
template <class Compute>
inline __m512 floats(Compute&& lane) { return make<__m512, float>(lane); }

template <class Lane>
inline __m512i add(__m512i a, __m512i b) {
  const Lanes<Lane> x(a), y(b);
  return integers<Lane>([&](int i) { return x[i] + y[i]; });
}
template <class Lane>
inline __m512i subtract(__m512i a, __m512i b) {
  const Lanes<Lane> x(a), y(b);
  return integers<Lane>([&](int i) { return x[i] - y[i]; });
}
template <class Lane>
inline __m512i look_up(__m512i index, __m512i table) {
  const Lanes<Lane> x(index), y(table);
  return integers<Lane>([&](int i) { return y[x[i] % Lanes<Lane>::count]; });
}
template <class Lane>
inline __m512i shift_left(__m512i a, int by) {
  const Lanes<Lane> x(a);
  return integers<Lane>([&](int i) { return x[i] << by; });
}
template <class Lane>
inline __m512i shift_right(__m512i a, int by) {
  const Lanes<Lane> x(a);
  return integers<Lane>([&](int i) { return x[i] >> by; });
}
// Those of the mask get the lanes of `a`, one after the other, the rest those of `other`.
template <class Lane>
inline __m512i expand(__m512i other, uint64_t mask, __m512i a) {
  const Lanes<Lane> x(a), rest(other);
  int next = 0;
  return integers<Lane>([&](int i) { return mask >> i & 1 ? x[next++] : rest[i]; });
}
// The lanes of `a` that are of the mask, one after the other, and zeros.
template <class Lane>
inline __m512i compress(uint64_t mask, __m512i a) {
  const Lanes<Lane> x(a);
  int next = 0;
  return integers<Lane>([&](int) {
    while (next < x.count && !(mask >> next & 1)) ++next;
    return next < x.count ? x[next++] : Lane{0};
  });
}
// Which lanes of two vectors have a bit in common.
inline uint16_t test(__m512i a, __m512i b) {
  const Lanes<uint32_t> x(a), y(b);
  int mask = 0;
  for (int i = 0; i < 16; ++i) mask |= ((x[i] & y[i]) != 0) << i;
  return static_cast<uint16_t>(mask);
}
// Lanes of one width as lanes of another.
template <class To, class From, class Result, class Register>
inline Result convert(Register a) {
  From lanes[sizeof a / sizeof(From)];
  std::memcpy(lanes, &a, sizeof a);
  return make<Result, To>([&](int i) { return lanes[i]; });
}
template <class Lane>
inline __m512i all(Lane value) {
  return integers<Lane>([&](int) { return value; });
}

inline __m256 half_of(__m512 a, int which) {
  __m256 half;
  std::memcpy(&half, reinterpret_cast<const char*>(&a) + 32 * which, 32);
  return half;
}
template <class Result, class Half>
inline Result join(Half low, Half high) {
  Result result;
  std::memcpy(&result, &low, 32);
  std::memcpy(reinterpret_cast<char*>(&result) + 32, &high, 32);
  return result;
}

inline float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
inline uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline __m512i dot_bytes(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  const Lanes<int32_t> s(sum);
  const Lanes<uint8_t> x(unsigned_bytes);
  const Lanes<int8_t> y(signed_bytes);
  return integers<int32_t>([&](int i) {
    int32_t total = s[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) total += x[j] * y[j];
    return total;
  });
}
template <class Pairs>
inline __m512 dot_pairs(__m512 sum, Pairs a, Pairs b) {
  const Lanes<float> s(sum);
  const Lanes<uint16_t> x(a), y(b);
  return floats([&](int i) {
    const float odd = s[i] + widen(x[2 * i + 1]) * widen(y[2 * i + 1]);
    return odd + widen(x[2 * i]) * widen(y[2 * i]);
  });
}
inline __m512i choose_bits(__m512i a, __m512i b, __m512i c, int table) {
  const Lanes<uint32_t> x(a), y(b), z(c);
  return integers<uint32_t>([&](int i) {
    uint32_t result = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const int row = (x[i] >> bit & 1) << 2 | (y[i] >> bit & 1) << 1 | (z[i] >> bit & 1);
      result |= static_cast<uint32_t>(table >> row & 1) << bit;
    }
    return result;
  });
}
template <class Index>
inline __m512 gather(const float* from, Index index) {
  const Lanes<int32_t> places(index);
  return floats([&](int i) { return from[places[i]]; });
}

inline __m512i blend_words(uint32_t mask, __m512i a, __m512i b) {
  const Lanes<uint16_t> x(a), y(b);
  return integers<uint16_t>([&](int i) { return mask >> i & 1 ? y[i] : x[i]; });
}
// In each quarter of a register the lanes that two bits each name.
inline __m512i shuffle_quarters(__m512i a, int places) {
  const Lanes<uint32_t> x(a);
  return integers<uint32_t>([&](int i) { return x[i / 4 * 4 + (places >> i % 4 * 2 & 3)]; });
}
// The same, each lane by the lowest two bits of an index of its own.
inline __m512 choose_of_quarters(__m512 a, __m512i index) {
  const Lanes<float> x(a);
  const Lanes<uint32_t> places(index);
  return floats([&](int i) { return x[i / 4 * 4 + (places[i] & 3)]; });
}
inline __m512 repeat_quarter(__m128 a) {
  return floats([&](int i) { return a[i % 4]; });
}
inline __m256bh narrow(__m512 a) {
  const Lanes<float> x(a);
  return make<__m256bh, uint16_t>([&](int i) { return narrow(x[i]); });
}
inline __m512bh narrow_two(__m512 high, __m512 low) {
  const Lanes<float> x(low), y(high);
  return make<__m512bh, uint16_t>([&](int i) { return narrow(i < 16 ? x[i] : y[i - 16]); });
}
inline __m512 scale_by_power(__m512 a, __m512 power) {
  const Lanes<float> x(a), y(power);
  return floats([&](int i) { return __builtin_ldexpf(x[i], static_cast<int>(y[i])); });
}
inline int32_t sum(__m512i a) {
  uint32_t total = 0;
  for (const uint32_t lane : Lanes<uint32_t>(a).of) total += lane;
  return static_cast<int32_t>(total);
}
inline __m512 broadcast(float value) {
  return floats([&](int) { return value; });
}

// Tile registers: rows of bytes, as `Shapes` says.
struct Tile {
  alignas(64) uint8_t bytes[16][64];
};
inline thread_local Tile tiles[8];
inline thread_local uint8_t tile_rows[8];
inline thread_local uint16_t tile_row_bytes[8];

inline void configure(const void* shapes) {
  const uint8_t* from = static_cast<const uint8_t*>(shapes);
  std::memcpy(tile_row_bytes, from + 16, sizeof tile_row_bytes);
  std::memcpy(tile_rows, from + 48, sizeof tile_rows);
  std::memset(tiles, 0, sizeof tiles);
}
inline void load_tile(int tile, const void* from, int64_t stride) {
  for (int i = 0; i < tile_rows[tile]; ++i)
    std::memcpy(tiles[tile].bytes[i], static_cast<const char*>(from) + i * stride,
                tile_row_bytes[tile]);
}
inline void store_tile(int tile, void* to, int64_t stride) {
  for (int i = 0; i < tile_rows[tile]; ++i)
    std::memcpy(static_cast<char*>(to) + i * stride, tiles[tile].bytes[i], tile_row_bytes[tile]);
}
// sums [M][N] += x [M][K] times w [K][N], in whose rows elements of four bytes stand together.
template <class Sum, class Dot>
inline void multiply_tiles(int sums, int x, int w, Dot&& dot) {
  for (int i = 0; i < tile_rows[sums]; ++i)
    for (int j = 0; j < tile_row_bytes[sums] / 4; ++j) {
      Sum total;
      std::memcpy(&total, tiles[sums].bytes[i] + 4 * j, 4);
      for (int k = 0; k < tile_row_bytes[x] / 4; ++k)
        total = dot(total, tiles[x].bytes[i] + 4 * k, tiles[w].bytes[k] + 4 * j);
      std::memcpy(tiles[sums].bytes[i] + 4 * j, &total, 4);
    }
}
inline void multiply_bfloat16_tiles(int sums, int x, int w) {
  multiply_tiles<float>(sums, x, w, [](float total, const uint8_t* a, const uint8_t* b) {
    uint16_t first[2], second[2];
    std::memcpy(first, a, 4);
    std::memcpy(second, b, 4);
    for (int i = 0; i < 2; ++i) total += widen(first[i]) * widen(second[i]);
    return total;
  });
}
inline void multiply_signed_by_unsigned_tiles(int sums, int x, int w) {
  multiply_tiles<int32_t>(sums, x, w, [](int32_t total, const uint8_t* a, const uint8_t* b) {
    for (int i = 0; i < 4; ++i) total += static_cast<int8_t>(a[i]) * b[i];
    return total;
  });
}

}  // namespace emulated

#define _mm512_add_epi8 emulated::add<uint8_t>
#define _mm512_add_epi16 emulated::add<uint16_t>
#define _mm512_add_epi32 emulated::add<uint32_t>
#define _mm512_sub_epi8 emulated::subtract<uint8_t>
#define _mm512_sub_epi32 emulated::subtract<uint32_t>
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_or_si512(a, b) ((a) | (b))
#define _mm512_slli_epi16 emulated::shift_left<uint16_t>
#define _mm512_slli_epi32 emulated::shift_left<uint32_t>
#define _mm512_srli_epi32 emulated::shift_right<uint32_t>
#define _mm512_srai_epi32 emulated::shift_right<int32_t>
#define _mm512_permutexvar_epi8 emulated::look_up<uint8_t>
#define _mm512_permutexvar_epi16 emulated::look_up<uint16_t>
#define _mm512_permutexvar_epi32 emulated::look_up<uint32_t>
#define _mm512_permutexvar_ps(index, a) ((__m512)emulated::look_up<uint32_t>(index, (__m512i)(a)))
#define _mm512_maskz_expand_epi16(mask, a) emulated::expand<uint16_t>(__m512i{}, mask, a)
#define _mm512_maskz_expand_epi32(mask, a) emulated::expand<uint32_t>(__m512i{}, mask, a)
#define _mm512_maskz_compress_epi16 emulated::compress<uint16_t>
#define _mm512_maskz_compress_epi32 emulated::compress<uint32_t>
#define _mm512_test_epi32_mask emulated::test
#define _mm512_mask_expand_epi8 emulated::expand<uint8_t>
#define _mm512_mask_blend_epi16 emulated::blend_words
#define _mm512_shuffle_epi32 emulated::shuffle_quarters
#define _mm512_permutevar_ps emulated::choose_of_quarters
#define _mm512_broadcast_f32x4 emulated::repeat_quarter
#define _mm512_set1_epi8(value) emulated::all<uint8_t>(static_cast<uint8_t>(value))
#define _mm512_set1_epi16(value) emulated::all<uint16_t>(static_cast<uint16_t>(value))
#define _mm512_set1_epi32(value) emulated::all<uint32_t>(static_cast<uint32_t>(value))
#define _mm512_setzero_si512() (__m512i{})
#define _mm512_setzero_ps() (__m512{})
#define _mm512_set1_ps emulated::broadcast
#define _mm512_store_si512(to, a) store(to, a)
#define _mm512_storeu_si512(to, a) store(to, a)
#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castsi256_si512(a) emulated::join<__m512i>(a, __m256i{})
#define _mm512_castsi512_si256(a) ((__m256i)emulated::half_of((__m512)(a), 0))
#define _mm512_inserti64x4(a, half, which) \
  emulated::join<__m512i>((__m256i)emulated::half_of((__m512)(a), 0), half)
#define _mm512_broadcast_i32x4(a) \
  emulated::join<__m512i>(_mm256_broadcastsi128_si256(a), _mm256_broadcastsi128_si256(a))
#define _mm512_cvtepi32_epi8 emulated::convert<uint8_t, uint32_t, __m128i>
#define _mm512_cvtepi32_epi16 emulated::convert<uint16_t, uint32_t, __m256i>
#define _mm512_cvtepu16_epi32 emulated::convert<uint32_t, uint16_t, __m512i>
#define _mm512_cvtepu8_epi16 emulated::convert<uint16_t, uint8_t, __m512i>
#define _mm512_cvtepu8_epi32 emulated::convert<uint32_t, uint8_t, __m512i>
#define _mm512_cvtepi8_epi32 emulated::convert<int32_t, int8_t, __m512i>
#define _mm512_cvtps_epi32(a)                                             \
  emulated::join<__m512i>(_mm256_cvtps_epi32(emulated::half_of(a, 0)),    \
                          _mm256_cvtps_epi32(emulated::half_of(a, 1)))
#define _mm512_cvtph_ps(a)                                                \
  emulated::join<__m512>(_mm256_cvtph_ps(_mm256_castsi256_si128(a)),      \
                         _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)))
#define _mm512_cvtneps_pbh emulated::narrow
#define _mm512_cvtne2ps_pbh emulated::narrow_two
#define _mm512_fmadd_ps(a, b, c)                                                                \
  emulated::join<__m512>(                                                                       \
      _mm256_fmadd_ps(emulated::half_of(a, 0), emulated::half_of(b, 0), emulated::half_of(c, 0)), \
      _mm256_fmadd_ps(emulated::half_of(a, 1), emulated::half_of(b, 1), emulated::half_of(c, 1)))
#define _mm512_fnmadd_ps(a, b, c) _mm512_fmadd_ps(-(a), b, c)
#define _mm512_add_ps(a, b) ((__m512)((a) + (b)))
#define _mm512_sub_ps(a, b) ((__m512)((a) - (b)))
#define _mm512_max_ps(a, b)                                                       \
  emulated::join<__m512>(_mm256_max_ps(emulated::half_of(a, 0), emulated::half_of(b, 0)), \
                         _mm256_max_ps(emulated::half_of(a, 1), emulated::half_of(b, 1)))
#define _mm512_min_ps(a, b)                                                       \
  emulated::join<__m512>(_mm256_min_ps(emulated::half_of(a, 0), emulated::half_of(b, 0)), \
                         _mm256_min_ps(emulated::half_of(a, 1), emulated::half_of(b, 1)))
#define _mm512_scalef_ps emulated::scale_by_power
#define _mm512_reduce_add_epi32 emulated::sum
#define _mm512_ternarylogic_epi32 emulated::choose_bits
#define _mm512_dpbusd_epi32 emulated::dot_bytes
#define _mm512_dpbf16_ps emulated::dot_pairs
#define __builtin_ia32_gathersiv16sf(zero, from, index, mask, size) \
  ((Floats<16>)emulated::gather(from, index))

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig emulated::configure
#define _tile_release() ((void)0)
#define _tile_zero(tile) std::memset(emulated::tiles[tile].bytes, 0, sizeof(emulated::Tile))
#define _tile_loadd emulated::load_tile
#define _tile_stored emulated::store_tile
#define _tile_dpbf16ps emulated::multiply_bfloat16_tiles
#define _tile_dpbsud emulated::multiply_signed_by_unsigned_tiles
// The system grants the tile registers.
#define syscall(...) 0
