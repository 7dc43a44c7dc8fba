/*
 * Folding: a block of message bits is moved D bits onwards by multiplying its halves with x^(D+32) and x^(D-32) mod P; four blocks
 * are folded side by side, then into one, then the 128 bits that remain are reduced to 32 (Gopal et al., "Fast CRC computation for
 * generic polynomials using PCLMULQDQ", Intel 2009). The constants are those powers, bit-reflected.
 */
#include "crc32.h"

/* Half a byte at a time: for the few bytes that are left over. */
static uint32_t plain(uint32_t state, const uint8_t *data, size_t length) {
  static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                     0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
  while (length--) {
    state ^= *data++;
    state = (state >> 4) ^ table[state & 15];
    state = (state >> 4) ^ table[state & 15];
  }
  return state;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define FOLD_2048_LOW 0x11542778aLL
#define FOLD_2048_HIGH 0x1322d1430LL
#define FOLD_512_LOW 0x154442bd4LL
#define FOLD_512_HIGH 0x1c6e41596LL
#define FOLD_128_LOW 0x1751997d0LL
#define FOLD_128_HIGH 0x0ccaa009eLL
#define X_64 0x163cd6124LL
#define POLYNOMIAL 0x1db710641LL
#define QUOTIENT 0x1f7011641LL

#define NARROW __attribute__((target("pclmul,sse4.1")))
#define WIDE __attribute__((target("avx512f,avx512bw,vpclmulqdq,pclmul,sse4.1")))

NARROW static inline __m128i fold(__m128i block, __m128i by, __m128i onto) {
  __m128i low = _mm_clmulepi64_si128(block, by, 0x00), high = _mm_clmulepi64_si128(block, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

/* 128 bits to the state of 32. */
NARROW static uint32_t reduce(__m128i block) {
  const __m128i words = _mm_setr_epi32(-1, 0, -1, 0);
  block = _mm_xor_si128(_mm_srli_si128(block, 8), _mm_clmulepi64_si128(block, _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW), 0x10));
  block = _mm_xor_si128(_mm_srli_si128(block, 4), _mm_clmulepi64_si128(_mm_and_si128(block, words), _mm_set_epi64x(0, X_64), 0x00));
  __m128i by = _mm_set_epi64x(QUOTIENT, POLYNOMIAL);
  __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(block, words), by, 0x10), words);
  return (uint32_t)_mm_extract_epi32(_mm_xor_si128(block, _mm_clmulepi64_si128(quotient, by, 0x00)), 1);
}

/* The rest, 16 bytes at a time, behind a block that stands for all before. Sets what is left over. */
NARROW static __m128i fold_rest(__m128i block, const uint8_t **data, size_t *length) {
  const __m128i by = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
  for (; *length >= 16; *data += 16, *length -= 16) block = fold(block, by, _mm_loadu_si128((const __m128i *)*data));
  return block;
}

/* From 64 bytes on. */
NARROW static uint32_t narrow(uint32_t state, const uint8_t *data, size_t length) {
  __m128i a = _mm_xor_si128(_mm_loadu_si128((const __m128i *)data), _mm_cvtsi32_si128((int)state));
  __m128i b = _mm_loadu_si128((const __m128i *)(data + 16)), c = _mm_loadu_si128((const __m128i *)(data + 32)), d = _mm_loadu_si128((const __m128i *)(data + 48));
  const __m128i far = _mm_set_epi64x(FOLD_512_HIGH, FOLD_512_LOW), near = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
  for (data += 64, length -= 64; length >= 64; data += 64, length -= 64) {
    a = fold(a, far, _mm_loadu_si128((const __m128i *)data));
    b = fold(b, far, _mm_loadu_si128((const __m128i *)(data + 16)));
    c = fold(c, far, _mm_loadu_si128((const __m128i *)(data + 32)));
    d = fold(d, far, _mm_loadu_si128((const __m128i *)(data + 48)));
  }
  a = fold_rest(fold(fold(fold(a, near, b), near, c), near, d), &data, &length);
  return plain(reduce(a), data, length);
}

WIDE static inline __m512i fold_wide(__m512i block, __m512i by, __m512i onto) {
  __m512i low = _mm512_clmulepi64_epi128(block, by, 0x00), high = _mm512_clmulepi64_epi128(block, by, 0x11);
  return _mm512_ternarylogic_epi64(low, high, onto, 0x96);
}

/* From 256 bytes on. */
WIDE static uint32_t wide(uint32_t state, const uint8_t *data, size_t length) {
  __m512i a = _mm512_xor_si512(_mm512_loadu_si512(data), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
  __m512i b = _mm512_loadu_si512(data + 64), c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
  const __m512i far = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_2048_HIGH, FOLD_2048_LOW)), near = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_512_HIGH, FOLD_512_LOW));
  for (data += 256, length -= 256; length >= 256; data += 256, length -= 256) {
    a = fold_wide(a, far, _mm512_loadu_si512(data));
    b = fold_wide(b, far, _mm512_loadu_si512(data + 64));
    c = fold_wide(c, far, _mm512_loadu_si512(data + 128));
    d = fold_wide(d, far, _mm512_loadu_si512(data + 192));
  }
  a = fold_wide(fold_wide(fold_wide(a, near, b), near, c), near, d);
  for (; length >= 64; data += 64, length -= 64) a = fold_wide(a, near, _mm512_loadu_si512(data));
  const __m128i by = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
  __m128i one = fold(_mm512_extracti32x4_epi32(a, 0), by, _mm512_extracti32x4_epi32(a, 1));
  one = fold(fold(one, by, _mm512_extracti32x4_epi32(a, 2)), by, _mm512_extracti32x4_epi32(a, 3));
  one = fold_rest(one, &data, &length);
  return plain(reduce(one), data, length);
}

static int has_narrow(void) { return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"); }
static int has_wide(void) { return has_narrow() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("vpclmulqdq"); }

int crc32_is_fast(void) { return has_narrow(); }

uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t length) {
  uint32_t state = ~crc;
  if (length >= 256 && has_wide()) state = wide(state, data, length);
  else if (length >= 64 && has_narrow()) state = narrow(state, data, length);
  else state = plain(state, data, length);
  return ~state;
}

#else

int crc32_is_fast(void) { return 0; }

uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t length) { return ~plain(~crc, data, length); }

#endif
