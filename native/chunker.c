#include "chunker.h"

#include <string.h>

static inline uint32_t rotate(uint32_t value, unsigned by) {
  by &= 31;
  return by ? (value << by) | (value >> (32 - by)) : value;
}

uint32_t chunker_hash(const uint32_t *table, const uint8_t *data, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; i++) sum = rotate(sum, 1) ^ table[data[i]];
  return sum;
}

uint32_t chunker_roll(const uint32_t *table, uint32_t sum, uint8_t remove, uint8_t add, size_t length) {
  return rotate(sum, 1) ^ rotate(table[remove], (unsigned)(length & 31)) ^ table[add];
}

/* The same in two halves at once: each chain waits for its own last sum only. */
static uint32_t hash_in_halves(const uint32_t *table, const uint8_t *data, size_t length) {
  const size_t half = length / 2;
  const uint8_t *second = data + half;
  uint32_t a = 0, b = 0;
  for (size_t i = 0; i < half; i++) {
    a = rotate(a, 1) ^ table[data[i]];
    b = rotate(b, 1) ^ table[second[i]];
  }
  if (length & 1) {
    b = rotate(b, 1) ^ table[data[length - 1]];
    return rotate(a, (unsigned)((half + 1) & 31)) ^ b;
  }
  return rotate(a, (unsigned)(half & 31)) ^ b;
}

/* Bytes that each of the two lanes rolls over before they meet; what a window costs to begin with is small beside it. */
#define LANE 32768

#define ROLL(sum, out, in) (((sum) << 1 | (sum) >> 31) ^ (leaving[*(out)] ^ table[*(in)]))

/*
 * The first of `steps` windows whose hash has all bits of `mask` zero: its distance from `out`, or `steps` if there is none. A sum
 * depends on the one before, which leaves the processor idle most of the time; so two stretches are rolled over at once.
 */
static size_t first_cut(const uint32_t *table, const uint32_t *leaving, const uint8_t *out, size_t window, size_t steps, uint32_t mask) {
  uint32_t sum = hash_in_halves(table, out, window);
  size_t at = 0;
  for (; steps - at >= 2 * LANE; at += 2 * LANE) {
    const uint8_t *a_out = out + at, *a_in = a_out + window, *b_out = a_out + LANE, *b_in = b_out + window;
    uint32_t a = sum, b = hash_in_halves(table, b_out, window);
    size_t i = 0;
    while (i < LANE && (a & mask) && (b & mask)) {
      a = ROLL(a, a_out + i, a_in + i);
      b = ROLL(b, b_out + i, b_in + i);
      i++;
    }
    if (i < LANE) {
      const size_t later = at + LANE + i;
      for (; i < LANE; i++) {
        if ((a & mask) == 0) return at + i;
        a = ROLL(a, a_out + i, a_in + i);
      }
      return later;
    }
    sum = b;
  }
  const uint8_t *in = out + window;
  while (at < steps && (sum & mask)) {
    sum = ROLL(sum, out + at, in + at);
    at++;
  }
  return at;
}

size_t chunker_next(const struct chunker_params *params, const uint8_t *data, size_t length, int last) {
  const size_t window = params->window;
  /* Too little left to test anything: the rest is one chunk. */
  if (length < params->min_size + window + 1) return last ? length : 0;
  const int capped = length >= params->max_size;
  const size_t limit = capped ? params->max_size : length;

  /* The window lies after the cut position; the byte that leaves it is looked up already rotated by the window's size. */
  uint32_t leaving[256];
  for (int i = 0; i < 256; i++) leaving[i] = rotate(params->table[i], (unsigned)(window & 31));

  /* A window that ends exactly at the limit is never a cut, even if its hash would be one. */
  const size_t steps = limit - params->min_size - window;
  const size_t cut = first_cut(params->table, leaving, data + params->min_size, window, steps, params->mask);
  if (cut == steps) return capped || last ? limit : 0;
  return params->min_size + cut;
}

int chunker_is_zero(const uint8_t *data, size_t length) {
  if (length == 0) return 1;
  return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}
