#include "lz4.h"

#include <string.h>

/* What follows 15 in half a token. 0 if the block ends within. */
static int lengthen(const uint8_t **from, const uint8_t *end, size_t *length) {
  uint8_t more;
  do {
    if (*from == end) return 0;
    more = *(*from)++;
    *length += more;
  } while (more == 255);
  return 1;
}

ptrdiff_t lz4_decode(const uint8_t *from, size_t length, uint8_t *to, size_t room) {
  const uint8_t *end = from + length;
  uint8_t *out = to, *limit = to + room;
  while (from < end) {
    unsigned token = *from++;
    size_t literals = token >> 4, match = token & 15;
    if (literals == 15 && !lengthen(&from, end, &literals)) return -1;
    if (literals > (size_t)(end - from) || literals > (size_t)(limit - out)) return -1;
    if (literals) memcpy(out, from, literals);
    out += literals;
    from += literals;
    /* The last sequence has only literals. */
    if (from == end) break;
    if (end - from < 2) return -1;
    size_t offset = (size_t)from[0] | (size_t)from[1] << 8;
    from += 2;
    if (offset == 0 || offset > (size_t)(out - to)) return -1;
    if (match == 15 && !lengthen(&from, end, &match)) return -1;
    match += 4;
    if (match > (size_t)(limit - out)) return -1;
    /* What is copied may be copied again by the same match: each time twice as much is there. */
    for (const uint8_t *source = out - offset; match > 0;) {
      size_t some = (size_t)(out - source) < match ? (size_t)(out - source) : match;
      memcpy(out, source, some);
      out += some;
      match -= some;
    }
  }
  return out - to;
}

ptrdiff_t lz4_plain_length(const uint8_t *from, size_t length, size_t most) {
  const uint8_t *end = from + length;
  size_t left = most;
  while (from < end) {
    unsigned token = *from++;
    /* At most 255 for each byte of the block: no sum overflows. */
    size_t literals = token >> 4, match = token & 15;
    if (literals == 15 && !lengthen(&from, end, &literals)) return -1;
    if (literals > (size_t)(end - from) || literals > left) return -1;
    from += literals;
    left -= literals;
    if (from == end) break;
    if (end - from < 2) return -1;
    from += 2;
    if (match == 15 && !lengthen(&from, end, &match)) return -1;
    match += 4;
    if (match > left) return -1;
    left -= match;
  }
  return (ptrdiff_t)(most - left);
}

enum { SHORTEST_MATCH = 4, FARTHEST = 65535, LAST_LITERALS = 5, NO_MATCH_AFTER = 12, HASH_BITS = 13, PATIENCE = 6 };

static uint32_t four(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static uint32_t hash_four(uint32_t value) { return value * 2654435761u >> (32 - HASH_BITS); }

static uint8_t *put_more(uint8_t *out, size_t more) {
  for (; more >= 255; more -= 255) *out++ = 255;
  *out++ = (uint8_t)more;
  return out;
}

/* How many bytes agree, up to `limit`. */
static size_t agree(const uint8_t *a, const uint8_t *b, const uint8_t *limit) {
  const uint8_t *start = a;
  for (; limit - a >= 8; a += 8, b += 8) {
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    if (x != y) break;
  }
  while (a < limit && *a == *b) a++, b++;
  return (size_t)(a - start);
}

/* Literals, and behind them a match unless its length is 0. NULL: no room. */
static uint8_t *put_sequence(uint8_t *out, const uint8_t *end, const uint8_t *literals, size_t count, size_t offset, size_t match) {
  if ((size_t)(end - out) < 1 + count / 255 + 1 + count + (match ? 2 + match / 255 + 1 : 0)) return NULL;
  size_t rest = match ? match - SHORTEST_MATCH : 0;
  *out++ = (uint8_t)((count < 15 ? count : 15) << 4 | (rest < 15 ? rest : 15));
  if (count >= 15) out = put_more(out, count - 15);
  if (count) memcpy(out, literals, count);
  out += count;
  if (!match) return out;
  *out++ = (uint8_t)offset;
  *out++ = (uint8_t)(offset >> 8);
  return rest >= 15 ? put_more(out, rest - 15) : out;
}

ptrdiff_t lz4_encode(const uint8_t *from, size_t length, uint8_t *to, size_t room) {
  uint32_t seen[1 << HASH_BITS]; /* positions + 1 */
  uint8_t *out = to, *out_end = to + room;
  const uint8_t *at = from, *literals = from, *end = from + length;
  memset(seen, 0, sizeof seen);
  size_t misses = 0;
  while (end - at > NO_MATCH_AFTER) {
    uint32_t value = four(at), *slot = &seen[hash_four(value)];
    const uint8_t *before = *slot ? from + *slot - 1 : NULL;
    *slot = (uint32_t)(at - from) + 1;
    if (!before || at - before > FARTHEST || four(before) != value) {
      /* What is not found for long is looked for less often. */
      at += 1 + (misses++ >> PATIENCE);
      continue;
    }
    misses = 0;
    while (at > literals && before > from && at[-1] == before[-1]) at--, before--;
    size_t match = agree(at, before, end - LAST_LITERALS);
    out = put_sequence(out, out_end, literals, (size_t)(at - literals), (size_t)(at - before), match);
    if (!out) return -1;
    at += match;
    literals = at;
    if (end - at > NO_MATCH_AFTER) seen[hash_four(four(at - 2))] = (uint32_t)(at - 2 - from) + 1;
  }
  out = put_sequence(out, out_end, literals, (size_t)(end - literals), 0, 0);
  return out ? out - to : -1;
}
