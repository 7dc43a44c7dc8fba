#include "sha256_lanes.h"

#include <string.h>
#include <time.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define WIDE __attribute__((target("avx512f,avx512bw")))
#define INLINE static inline __attribute__((always_inline))

WIDE INLINE __m512i xor_of(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
WIDE INLINE __m512i choice(__m512i e, __m512i f, __m512i g) { return _mm512_ternarylogic_epi32(e, f, g, 0xca); }
WIDE INLINE __m512i majority(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0xe8); }
WIDE INLINE __m512i sum(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
/* FIPS 180-4 §4.1.2, in its order. */
WIDE INLINE __m512i big_sigma_0(__m512i x) { return xor_of(_mm512_ror_epi32(x, 2), _mm512_ror_epi32(x, 13), _mm512_ror_epi32(x, 22)); }
WIDE INLINE __m512i big_sigma_1(__m512i x) { return xor_of(_mm512_ror_epi32(x, 6), _mm512_ror_epi32(x, 11), _mm512_ror_epi32(x, 25)); }
WIDE INLINE __m512i sigma_0(__m512i x) { return xor_of(_mm512_ror_epi32(x, 7), _mm512_ror_epi32(x, 18), _mm512_srli_epi32(x, 3)); }
WIDE INLINE __m512i sigma_1(__m512i x) { return xor_of(_mm512_ror_epi32(x, 17), _mm512_ror_epi32(x, 19), _mm512_srli_epi32(x, 10)); }

/* Rows become columns: from the block of each message, the same word of all of them. */
WIDE INLINE void transpose(__m512i rows[16]) {
  __m512i parts[16];
  for (int i = 0; i < 16; i += 4) {
    __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]), b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]), d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    /* parts[i + j], quarter k: word 4k + j of rows i to i + 3. */
    parts[i] = _mm512_unpacklo_epi64(a, c), parts[i + 1] = _mm512_unpackhi_epi64(a, c);
    parts[i + 2] = _mm512_unpacklo_epi64(b, d), parts[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int j = 0; j < 4; j++) {
    __m512i a = _mm512_shuffle_i32x4(parts[j], parts[4 + j], 0x88), b = _mm512_shuffle_i32x4(parts[j], parts[4 + j], 0xdd);
    __m512i c = _mm512_shuffle_i32x4(parts[8 + j], parts[12 + j], 0x88), d = _mm512_shuffle_i32x4(parts[8 + j], parts[12 + j], 0xdd);
    rows[j] = _mm512_shuffle_i32x4(a, c, 0x88), rows[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88), rows[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

/*
 * One round; v are a to h, which instead of moving change their names from round to round. Instructions take two cycles each, so what waits longest
 * comes last in each sum.
 */
WIDE INLINE void one_round(__m512i v[8], int round, __m512i word) {
#define V(name) v[(name - 'a' - round) & 7]
  __m512i known = sum(sum(V('h'), sum(word, _mm512_set1_epi32((int)sha256_constants[round]))), choice(V('e'), V('f'), V('g')));
  __m512i late = big_sigma_1(V('e'));
  V('d') = sum(sum(V('d'), known), late);
  V('h') = sum(sum(known, majority(V('a'), V('b'), V('c'))), sum(late, big_sigma_0(V('a'))));
#undef V
}

WIDE void sha256_lanes_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const data[SHA256_LANES], size_t blocks) {
  const __m512i big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL));
  __m512i state[8];
  for (int i = 0; i < 8; i++) state[i] = _mm512_loadu_si512(states[i]);
  for (size_t block = 0; block < blocks; block++) {
    __m512i words[16], v[8];
    for (int i = 0; i < 16; i++) words[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[i] + block * SHA256_BLOCK), big_endian);
    /* Sixteen places in memory are more than the processor looks ahead at by itself. */
    for (int i = 0; i < 16; i++) _mm_prefetch((const char *)(data[i] + (block + 2) * SHA256_BLOCK), _MM_HINT_T0);
    transpose(words);
    for (int i = 0; i < 8; i++) v[i] = state[i];
#pragma GCC unroll 64
    for (int round = 0; round < 64; round++) {
      __m512i *word = &words[round & 15];
      if (round >= 16) *word = sum(sum(*word, sigma_0(words[(round + 1) & 15])), sum(words[(round + 9) & 15], sigma_1(words[(round + 14) & 15])));
      one_round(v, round, *word);
    }
    for (int i = 0; i < 8; i++) state[i] = sum(state[i], v[i]);
  }
  for (int i = 0; i < 8; i++) _mm512_storeu_si512(states[i], state[i]);
}

/* The compiler's function asks the system as well, which has to save the registers. */
int sha256_lanes_exist(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"); }

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

enum { TRIED_BLOCKS = 32, TRIES = 5 };

int sha256_lanes_from(void) {
  static int known;
  int from = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (from) return from;
  from = SHA256_LANES + 1;
  if (sha256_lanes_exist() && sha256_is_fast()) {
    uint8_t message[TRIED_BLOCKS * SHA256_BLOCK] = {0};
    uint32_t lanes[8][SHA256_LANES] = {{0}}, states[SHA256_SIDE_BY_SIDE][8] = {{0}};
    const uint8_t *data[SHA256_LANES];
    uint32_t *each[SHA256_SIDE_BY_SIDE];
    for (int i = 0; i < SHA256_LANES; i++) data[i] = message;
    for (int i = 0; i < SHA256_SIDE_BY_SIDE; i++) each[i] = states[i];
    /* The best of some: another thread may come between. */
    uint64_t wide = UINT64_MAX, narrow = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
      uint64_t start = now();
      sha256_lanes_blocks(lanes, data, TRIED_BLOCKS);
      uint64_t middle = now();
      for (int k = 0; k < SHA256_LANES; k += SHA256_SIDE_BY_SIDE) sha256_blocks_side_by_side(each, data, SHA256_SIDE_BY_SIDE, TRIED_BLOCKS);
      uint64_t end = now();
      if (middle - start < wide) wide = middle - start;
      if (end - middle < narrow) narrow = end - middle;
    }
    if (narrow > 0 && wide < narrow) from = (int)(SHA256_LANES * wide / narrow) + 2;
  }
  __atomic_store_n(&known, from, __ATOMIC_RELAXED);
  return from;
}

#else

int sha256_lanes_exist(void) { return 0; }
int sha256_lanes_from(void) { return SHA256_LANES + 1; }
void sha256_lanes_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const data[SHA256_LANES], size_t blocks) { (void)states, (void)data, (void)blocks; }

#endif
