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

size_t chunker_next(const struct chunker_params *params, const uint8_t *data, size_t length, int last) {
  const size_t window = params->window;
  /* Too little left to test anything: the rest is one chunk. */
  if (length < params->min_size + window + 1) return last ? length : 0;
  const int capped = length >= params->max_size;
  const size_t limit = capped ? params->max_size : length;
  const uint32_t *table = params->table;
  const uint32_t mask = params->mask;

  /* The window lies after the cut position; the byte that leaves it is looked up already rotated by the window's size. */
  uint32_t leaving[256];
  for (int i = 0; i < 256; i++) leaving[i] = rotate(table[i], (unsigned)(window & 31));

  const uint8_t *out = data + params->min_size;
  const uint8_t *in = out + window;
  const uint8_t *end = data + limit;
  uint32_t sum = chunker_hash(table, out, window);
  while (in < end && (sum & mask) != 0) {
    sum = ((sum << 1) | (sum >> 31)) ^ (leaving[*out++] ^ table[*in++]);
  }
  /* A window that ends exactly at the limit is never a cut, even if its hash would be one. */
  if (in >= end) return capped || last ? limit : 0;
  return (size_t)(out - data);
}

int chunker_is_zero(const uint8_t *data, size_t length) {
  if (length == 0) return 1;
  return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}
