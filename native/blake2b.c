#include "blake2b.h"

#include <string.h>

#define BLOCK 128

static const uint64_t start[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                  0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

static const uint8_t order[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

static inline uint64_t right(uint64_t value, int by) { return value >> by | value << (64 - by); }

#define MIX(a, b, c, d, x, y)        \
  v[a] += v[b] + m[order[round][x]]; \
  v[d] = right(v[d] ^ v[a], 32);     \
  v[c] += v[d];                      \
  v[b] = right(v[b] ^ v[c], 24);     \
  v[a] += v[b] + m[order[round][y]]; \
  v[d] = right(v[d] ^ v[a], 16);     \
  v[c] += v[d];                      \
  v[b] = right(v[b] ^ v[c], 63);

/* `total`: bytes up to the end of this block. */
static void compress(uint64_t state[8], const uint8_t *block, uint64_t total, int last) {
  uint64_t m[16], v[16];
  memcpy(m, block, BLOCK);
  memcpy(v, state, 64);
  memcpy(v + 8, start, 64);
  v[12] ^= total;
  if (last) v[14] = ~v[14];
#pragma GCC unroll 12
  for (int round = 0; round < 12; round++) {
    MIX(0, 4, 8, 12, 0, 1)
    MIX(1, 5, 9, 13, 2, 3)
    MIX(2, 6, 10, 14, 4, 5)
    MIX(3, 7, 11, 15, 6, 7)
    MIX(0, 5, 10, 15, 8, 9)
    MIX(1, 6, 11, 12, 10, 11)
    MIX(2, 7, 8, 13, 12, 13)
    MIX(3, 4, 9, 14, 14, 15)
  }
  for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

struct stream {
  uint64_t state[8], total;
  uint8_t rest[BLOCK];
  size_t used;
};

/* The last block is special, so a full one waits until there is more. */
static void update(struct stream *stream, const uint8_t *data, size_t length) {
  while (length > 0) {
    if (stream->used == BLOCK) {
      compress(stream->state, stream->rest, stream->total, 0);
      stream->used = 0;
    }
    if (stream->used == 0) {
      for (; length > BLOCK; data += BLOCK, length -= BLOCK) compress(stream->state, data, stream->total += BLOCK, 0);
    }
    size_t some = BLOCK - stream->used < length ? BLOCK - stream->used : length;
    memcpy(stream->rest + stream->used, data, some);
    stream->used += some;
    stream->total += some;
    data += some;
    length -= some;
  }
}

void blake2b_256(const uint8_t *head, size_t headLength, const uint8_t *data, size_t length, uint8_t hash[BLAKE2B_HASH]) {
  struct stream stream = {.total = 0, .used = 0};
  memcpy(stream.state, start, sizeof start);
  stream.state[0] ^= 0x01010000 ^ BLAKE2B_HASH;
  update(&stream, head, headLength);
  update(&stream, data, length);
  memset(stream.rest + stream.used, 0, BLOCK - stream.used);
  compress(stream.state, stream.rest, stream.total, 1);
  memcpy(hash, stream.state, BLAKE2B_HASH);
  explicit_bzero(&stream, sizeof stream);
}
