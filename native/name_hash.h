/*
 * Where a name in a directory is looked for among the slots of a tree's columns: who makes them and who answers from them must agree. HalfSipHash-1-3
 * under a seed of the tree's own: names come from whoever may make files, and must not be able to meet in one place on purpose.
 */
#ifndef BORGFS_NAME_HASH_H
#define BORGFS_NAME_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Words of a seed, which stand behind the slots. */
enum { NAME_SEED_WORDS = 2 };

struct name_hash_state {
  uint32_t a, b, c, d;
};

static inline uint32_t name_hash_rotated(uint32_t word, int bits) {
  return word << bits | word >> (32 - bits);
}

static inline void name_hash_round(struct name_hash_state *s) {
  s->a += s->b;
  s->b = name_hash_rotated(s->b, 5) ^ s->a;
  s->a = name_hash_rotated(s->a, 16);
  s->c += s->d;
  s->d = name_hash_rotated(s->d, 8) ^ s->c;
  s->a += s->d;
  s->d = name_hash_rotated(s->d, 7) ^ s->a;
  s->c += s->b;
  s->b = name_hash_rotated(s->b, 13) ^ s->c;
  s->c = name_hash_rotated(s->c, 16);
}

static inline void name_hash_word(struct name_hash_state *s, uint32_t word) {
  s->d ^= word;
  name_hash_round(s);
  s->a ^= word;
}

static inline uint32_t hash_name(const uint32_t seed[NAME_SEED_WORDS], uint32_t parent, const uint8_t *name, size_t length) {
  struct name_hash_state s = {seed[0], seed[1], 0x6c796765u ^ seed[0], 0x74656462u ^ seed[1]};
  size_t at = 0;
  name_hash_word(&s, parent);
  for (; at + 4 <= length; at += 4) name_hash_word(&s, (uint32_t)name[at] | (uint32_t)name[at + 1] << 8 | (uint32_t)name[at + 2] << 16 | (uint32_t)name[at + 3] << 24);
  uint32_t last = (uint32_t)length << 24;
  for (int shift = 0; at < length; at++, shift += 8) last |= (uint32_t)name[at] << shift;
  name_hash_word(&s, last);
  s.c ^= 0xff;
  for (int round = 0; round < 3; round++) name_hash_round(&s);
  return s.b ^ s.d;
}

#endif
