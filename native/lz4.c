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

enum { LITTLE_ENDIAN_HERE = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ };

static size_t two(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return LITTLE_ENDIAN_HERE ? value : __builtin_bswap16(value);
}

/*
 * Most sequences have few literals and a short match, so these are copied in whole steps of STEP bytes, whatever their length: the bytes behind them are
 * written again by what follows. It takes that many bytes of input and output which are there beyond the sequence; the last sequences, and all
 * others, are copied to the byte. Above LONG bytes a call of memcpy costs less than its result.
 */
enum { STEP = 16, LONG = 256 };
/* What a sequence with less than 15 literals and a match of less than 19 bytes may read, and write. */
enum { INPUT_OF_SHORT = 1 + STEP + 2, OUTPUT_OF_SHORT = 14 + 2 * STEP };

/* `from` may be less than STEP bytes before `to`: what is read is what was there before. */
static void copy_step(uint8_t *to, const uint8_t *from) {
  uint8_t step[STEP];
  memcpy(step, from, STEP);
  memcpy(to, step, STEP);
}

/* Up to STEP - 1 bytes more than `length`, which is not 0. `from` is at least STEP bytes before `to`, or apart. */
static void copy_steps(uint8_t *to, const uint8_t *from, size_t length) {
  uint8_t *end = to + length;
  do {
    copy_step(to, from);
    to += STEP;
    from += STEP;
  } while (to < end);
}

/* The `offset` < 8 bytes before `to`, again and again, and up to 7 bytes more than `length`. */
static void repeat(uint8_t *to, size_t offset, size_t length) {
  /* Each has its bits where a copy of `offset` bytes begins, and then the least multiple of the offset that is 8 or more. */
  static const uint64_t copies[] = {0, 0x0101010101010101, 0x0001000100010001, 0x0001000001000001, 0x0000000100000001, 0x0000010000000001, 0x0001000000000001, 0x0100000000000001};
  static const uint8_t period[] = {0, 8, 8, 9, 8, 10, 12, 14};
  uint64_t value;
  memcpy(&value, to - offset, 8);
  value = (value & (((uint64_t)1 << 8 * offset) - 1)) * copies[offset];
  memcpy(to, &value, 8);
  for (size_t at = 8; at < length; at += 8) memcpy(to + at, to + at - period[offset], 8);
}

/* Bytes that are there already, `offset` before `out`, which has `room` for more than `length`. */
static void copy_match(uint8_t *out, size_t offset, size_t length, size_t room) {
  const uint8_t *source = out - offset;
  if (length <= LONG && room - length >= STEP) {
    if (offset >= STEP) {
      copy_steps(out, source, length);
      return;
    }
    if (offset >= 8) {
      for (size_t at = 0; at < length; at += 8) memcpy(out + at, source + at, 8);
      return;
    }
    if (LITTLE_ENDIAN_HERE) {
      repeat(out, offset, length);
      return;
    }
  }
  /* What is copied may be copied again by the same match: each time twice as much is there. */
  while (length > 0) {
    size_t some = (size_t)(out - source) < length ? (size_t)(out - source) : length;
    memcpy(out, source, some);
    out += some;
    length -= some;
  }
}

ptrdiff_t lz4_decode(const uint8_t *from, size_t length, uint8_t *to, size_t room) {
  const uint8_t *end = from + length;
  uint8_t *out = to, *limit = to + room;
  /* Before these, all that a short sequence reads and writes is there. */
  const uint8_t *short_from = length > INPUT_OF_SHORT ? end - INPUT_OF_SHORT : from;
  const uint8_t *short_out = room > OUTPUT_OF_SHORT ? limit - OUTPUT_OF_SHORT : to;
  for (;;) {
    /* The last sequence has only literals: nothing ends with a match. */
    if (from >= end) return -1;
    size_t token = *from, literals, match, offset;
    /* One sequence after the other waits for the token before it: nothing else stands between two tokens. */
    while (from < short_from && out < short_out) {
      literals = token >> 4;
      match = token & 15;
      if (literals == 15) break;
      copy_step(out, from + 1);
      size_t next = from[literals + 3];
      offset = two(from + literals + 1);
      from += literals + 3;
      out += literals;
      /* What repeats itself takes more than one step; it is rare. */
      if (match == 15 || offset < match + 4 || offset > (size_t)(out - to)) goto unusual_match;
      const uint8_t *source = out - offset;
      copy_step(out, source);
      memcpy(out + STEP, source + STEP, 2);
      out += match + 4;
      token = next;
    }
    literals = token >> 4;
    match = token & 15;
    from++;
    if (literals == 15 && !lengthen(&from, end, &literals)) return -1;
    if (literals > (size_t)(end - from) || literals > (size_t)(limit - out)) return -1;
    if (literals > LONG || (size_t)(end - from) - literals < STEP || (size_t)(limit - out) - literals < STEP) {
      if (literals) memcpy(out, from, literals);
    } else if (literals) copy_steps(out, from, literals);
    out += literals;
    from += literals;
    if (from == end) return out - to;
    if (end - from < 2) return -1;
    offset = two(from);
    from += 2;
  unusual_match:
    if (offset == 0 || offset > (size_t)(out - to)) return -1;
    if (match == 15 && !lengthen(&from, end, &match)) return -1;
    match += 4;
    if (match > (size_t)(limit - out)) return -1;
    copy_match(out, offset, match, (size_t)(limit - out));
    out += match;
  }
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
