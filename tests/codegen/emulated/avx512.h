// The intrinsics of AVX-512 and AMX that generated kernels use, for CPUs that have AVX2: included before
// a kernel it has them computed by `lanes.h` and `amx.h`. EMULATED_LEVEL is a level of `ISA_LEVELS` from
// avx512 on, as a number: 0 avx512, 1 avx512_bf16, 2 amx.
#include "amx.h"
#include "lanes.h"

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
