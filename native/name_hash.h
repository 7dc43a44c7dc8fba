/*
 * Where a name in a directory is looked for among the slots of a tree's columns: who makes them and who answers from them must agree, and so
 * does nameHash of src/fs/tree-columns.ts. HalfSipHash-1-3 with a key that is each tree's own, at random: whoever has files in an archive chooses
 * their names, and a hundred thousand that meet in one slot would take a minute.
 */
#ifndef BORGFS_NAME_HASH_H
#define BORGFS_NAME_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct name_key {
  uint32_t low, high;
};

struct name_state {
  uint32_t a, b, c, d;
};

static inline uint32_t name_turn(uint32_t value, int by) { return value << by | value >> (32 - by); }

static inline void name_round(struct name_state *s) {
  s->a += s->b, s->b = name_turn(s->b, 5) ^ s->a, s->a = name_turn(s->a, 16);
  s->c += s->d, s->d = name_turn(s->d, 8) ^ s->c;
  s->a += s->d, s->d = name_turn(s->d, 7) ^ s->a;
  s->c += s->b, s->b = name_turn(s->b, 13) ^ s->c, s->c = name_turn(s->c, 16);
}

static inline void name_word(struct name_state *s, uint32_t word) {
  s->d ^= word;
  name_round(s);
  s->a ^= word;
}

/* Words are little-endian, as every host of borgfs is. */
static inline uint32_t hash_name(struct name_key key, uint32_t parent, const uint8_t *name, size_t length) {
  struct name_state s = {key.low, key.high, 0x6c796765u ^ key.low, 0x74656462u ^ key.high};
  uint32_t word, last = (uint32_t)length << 24;
  name_word(&s, parent);
  for (; length >= 4; length -= 4, name += 4) {
    memcpy(&word, name, 4);
    name_word(&s, word);
  }
  for (size_t i = 0; i < length; i++) last |= (uint32_t)name[i] << 8 * i;
  name_word(&s, last);
  s.c ^= 0xff;
  for (int i = 0; i < 3; i++) name_round(&s);
  return s.b ^ s.d;
}

#endif
