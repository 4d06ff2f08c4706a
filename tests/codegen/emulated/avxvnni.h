// AVX-VNNI for CPUs that have AVX2: what its instruction computes by two of theirs.
#include <immintrin.h>

#ifndef __AVXVNNI__
#define __AVXVNNI__ 1
#define _mm256_dpwssd_avx_epi32(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#endif
