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
