#include "deletion.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "crc32.h"

enum { HEADER_BYTES = 9, TAG_DELETE = 1, WINDOW_BYTES = 1024 };
static const uint32_t EMPTY = 0xffffffff, DELETED = 0xfffffffe;

static uint32_t word(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

/* The bucket of an id, NULL if it has none. `free`, unless it is NULL: where the id could be entered then. */
static uint8_t *find(struct bucket_table table, const uint8_t *id, uint8_t **free) {
  size_t stride = DELETION_ID_BYTES + 4 * table.values, bucket = table.count ? word(id) % table.count : 0;
  if (free) *free = NULL;
  for (size_t probes = 0; probes < table.count; probes++) {
    uint8_t *at = table.buckets + bucket * stride;
    uint32_t mark = word(at + DELETION_ID_BYTES);
    if (mark >= DELETED && free && !*free) *free = at;
    if (mark == EMPTY) return NULL;
    if (mark != DELETED && memcmp(at, id, DELETION_ID_BYTES) == 0) return at;
    if (++bucket == table.count) bucket = 0;
  }
  return NULL;
}

size_t deletion_take_out(struct bucket_table table, const uint8_t *ids, size_t count, uint32_t *words) {
  size_t found = 0;
  for (; count > 0; count--, ids += DELETION_ID_BYTES, words += table.values) {
    uint8_t *at = find(table, ids, NULL);
    if (!at) {
      memset(words, 0xff, 4 * table.values);
      continue;
    }
    memcpy(words, at + DELETION_ID_BYTES, 4 * table.values);
    memcpy(at + DELETION_ID_BYTES, &DELETED, 4);
    found++;
  }
  return found;
}

size_t deletion_enter(struct bucket_table table, const uint8_t *ids, size_t count, const uint32_t *words, size_t word_stride, uint32_t *known, size_t *emptied) {
  size_t already = 0;
  *emptied = 0;
  for (size_t number = 0; number < count; number++, ids += DELETION_ID_BYTES, words += word_stride) {
    uint8_t *at, *found = find(table, ids, &at);
    if (found || !at) {
      known[already++] = (uint32_t)number;
      continue;
    }
    *emptied += word(at + DELETION_ID_BYTES) == EMPTY;
    memcpy(at, ids, DELETION_ID_BYTES);
    memcpy(at + DELETION_ID_BYTES, words, 4);
  }
  return already;
}

static size_t pack_word(uint32_t value, uint8_t *to) {
  size_t width = value < 0x80 ? 0 : value < 0x100 ? 1 : value < 0x10000 ? 2 : 4;
  if (width == 0) to[0] = (uint8_t)value;
  else {
    to[0] = width == 1 ? 0xcc : width == 2 ? 0xcd : 0xce;
    for (size_t i = 0; i < width; i++) to[1 + i] = (uint8_t)(value >> 8 * (width - 1 - i));
  }
  return 1 + width;
}

static const uint8_t raw_header[3] = {0xda, 0, DELETION_ID_BYTES};
enum { ARRAY_OF_ONE = 0x91 };

size_t deletion_pack(struct bucket_table table, uint32_t limit, uint8_t *packed, size_t *entries) {
  uint8_t *to = packed;
  *entries = 0;
  for (size_t bucket = 0; bucket < table.count; bucket++) {
    const uint8_t *at = table.buckets + bucket * (DELETION_ID_BYTES + 4);
    uint32_t value = word(at + DELETION_ID_BYTES);
    if (value >= limit) continue;
    memcpy(to, raw_header, sizeof raw_header);
    memcpy(to + sizeof raw_header, at, DELETION_ID_BYTES);
    to += sizeof raw_header + DELETION_ID_BYTES;
    *to++ = ARRAY_OF_ONE;
    to += pack_word(value, to);
    ++*entries;
  }
  return (size_t)(to - packed);
}

size_t deletion_unpack(const uint8_t *packed, size_t length, size_t count, uint8_t *ids, uint32_t *words, size_t *bytes) {
  const uint8_t *from = packed, *end = packed + length;
  size_t number = 0;
  for (; number < count; number++) {
    const uint8_t *at = from + sizeof raw_header + DELETION_ID_BYTES;
    if (end - from < (ptrdiff_t)(sizeof raw_header + DELETION_ID_BYTES + 2) || memcmp(from, raw_header, sizeof raw_header) != 0 || *at++ != ARRAY_OF_ONE) break;
    uint8_t lead = *at++;
    size_t width = lead < 0x80 ? 0 : lead == 0xcc ? 1 : lead == 0xcd ? 2 : lead == 0xce ? 4 : 5;
    if (width > 4 || (size_t)(end - at) < width) break;
    uint32_t value = width == 0 ? lead : 0;
    for (size_t i = 0; i < width; i++) value = value << 8 | *at++;
    memcpy(ids + number * DELETION_ID_BYTES, from + sizeof raw_header, DELETION_ID_BYTES);
    words[number] = value;
    from = at;
  }
  *bytes = (size_t)(from - packed);
  return number;
}

void deletion_frame(const uint8_t *ids, size_t count, uint8_t *entries) {
  const uint32_t length = DELETION_ENTRY_BYTES;
  for (; count > 0; count--, ids += DELETION_ID_BYTES, entries += DELETION_ENTRY_BYTES) {
    memcpy(entries + 4, &length, 4);
    entries[8] = TAG_DELETE;
    memcpy(entries + HEADER_BYTES, ids, DELETION_ID_BYTES);
    uint32_t crc = crc32_update(0, entries + 4, DELETION_ENTRY_BYTES - 4);
    memcpy(entries, &crc, 4);
  }
}

size_t deletion_lengths(int fd, const uint32_t *offsets, size_t stride, size_t count, uint32_t *lengths, int *error) {
  uint8_t window[WINDOW_BYTES];
  uint64_t start = 0;
  size_t have = 0;
  *error = 0;
  for (size_t number = 0; number < count; number++, offsets += stride) {
    /* Small entries lie in one window, of large ones it is little that is read in vain. */
    if (*offsets < start || *offsets + (uint64_t)HEADER_BYTES > start + have) {
      ssize_t got;
      do got = pread(fd, window, sizeof window, *offsets);
      while (got < 0 && errno == EINTR);
      if (got < 0) *error = errno;
      if (got < HEADER_BYTES) return number;
      start = *offsets;
      have = (size_t)got;
    }
    lengths[number] = word(window + (*offsets - start) + 4);
  }
  return count;
}
