#include "sha256.h"

#include <string.h>

const uint32_t sha256_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

const uint32_t sha256_constants[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

size_t sha256_end(uint8_t into[2 * SHA256_BLOCK], const uint8_t *rest, uint64_t length) {
  size_t used = length % SHA256_BLOCK, blocks = used < SHA256_BLOCK - 8 ? 1 : 2, end = blocks * SHA256_BLOCK;
  if (used) memcpy(into, rest, used);
  into[used] = 0x80;
  memset(into + used + 1, 0, end - 8 - used - 1);
  for (int i = 0; i < 8; i++) into[end - 8 + i] = (uint8_t)((length * 8) >> (56 - 8 * i));
  return blocks;
}

void sha256_hash(const uint32_t state[8], uint8_t hash[SHA256_HASH]) {
  for (int i = 0; i < SHA256_HASH; i++) hash[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define FAST __attribute__((target("sha,sse4.1,ssse3")))

/* One message under way. The instructions want its state as ABEF and CDGH; `words` are the last 16 of the schedule, four by four. */
struct lane {
  __m128i abef, cdgh, words[4];
};

FAST static inline __attribute__((always_inline)) void load_state(struct lane *lane, const uint32_t state[8]) {
  __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
  __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
  lane->abef = _mm_alignr_epi8(badc, hgfe, 8);
  lane->cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
}

FAST static inline __attribute__((always_inline)) void store_state(const struct lane *lane, uint32_t state[8]) {
  __m128i feba = _mm_shuffle_epi32(lane->abef, 0x1b), dchg = _mm_shuffle_epi32(lane->cdgh, 0xb1);
  _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Rounds 4 * group and the three after it. `group` is a constant wherever this is inlined. */
FAST static inline __attribute__((always_inline)) void four_rounds(struct lane *lane, const uint8_t *block, int group) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  __m128i *words = &lane->words[group & 3];
  if (group < 4) *words = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * group)), big_endian);
  else {
    /* w[t] = s1(w[t-2]) + w[t-7] + s0(w[t-15]) + w[t-16], and *words are w[t-16] still. */
    __m128i second = lane->words[(group + 1) & 3], third = lane->words[(group + 2) & 3], last = lane->words[(group + 3) & 3];
    *words = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(*words, second), _mm_alignr_epi8(last, third, 4)), last);
  }
  __m128i sums = _mm_add_epi32(*words, _mm_load_si128((const __m128i *)(sha256_constants + 4 * group)));
  lane->cdgh = _mm_sha256rnds2_epu32(lane->cdgh, lane->abef, sums);
  lane->abef = _mm_sha256rnds2_epu32(lane->abef, lane->cdgh, _mm_shuffle_epi32(sums, 0x0e));
}

/* `count` is a constant wherever this is inlined. */
FAST static inline __attribute__((always_inline)) void blocks_of(uint32_t *const states[], const uint8_t *const data[], const int count, size_t blocks) {
  struct lane lanes[SHA256_SIDE_BY_SIDE];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) load_state(&lanes[i], states[i]);
  for (size_t block = 0; block < blocks; block++) {
    __m128i abef[SHA256_SIDE_BY_SIDE], cdgh[SHA256_SIDE_BY_SIDE];
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) abef[i] = lanes[i].abef, cdgh[i] = lanes[i].cdgh;
    /* Across the pages of memory the processor does not look ahead by itself. */
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) _mm_prefetch((const char *)(data[i] + (block + 8) * SHA256_BLOCK), _MM_HINT_T0);
#pragma GCC unroll 16
    for (int group = 0; group < 16; group++) {
#pragma GCC unroll 4
      for (int i = 0; i < count; i++) four_rounds(&lanes[i], data[i] + block * SHA256_BLOCK, group);
    }
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      lanes[i].abef = _mm_add_epi32(lanes[i].abef, abef[i]);
      lanes[i].cdgh = _mm_add_epi32(lanes[i].cdgh, cdgh[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) store_state(&lanes[i], states[i]);
}

FAST void sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks) { blocks_of(&state, &data, 1, blocks); }

FAST void sha256_blocks_side_by_side(uint32_t *const states[], const uint8_t *const data[], int count, size_t blocks) {
  switch (count) {
    case 1: blocks_of(states, data, 1, blocks); break;
    case 2: blocks_of(states, data, 2, blocks); break;
    case 3: blocks_of(states, data, 3, blocks); break;
    case 4: blocks_of(states, data, 4, blocks); break;
  }
}

/* GCC's __builtin_cpu_supports knows "sha" only since version 14. */
int sha256_is_fast(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & (1u << 29))) return 0;
  return __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

#else

int sha256_is_fast(void) { return 0; }
void sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks) { (void)state, (void)data, (void)blocks; }
void sha256_blocks_side_by_side(uint32_t *const states[], const uint8_t *const data[], int count, size_t blocks) {
  (void)states, (void)data, (void)count, (void)blocks;
}

#endif
