#include "release.h"

#include <string.h>

enum { ID_BYTES = 32 };
static const uint32_t EMPTY = 0xffffffff, DELETED = 0xfffffffe, LIMIT = 0xfffffbff;

static uint32_t word(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

/* The bucket of an id, NULL if it has none. */
static uint8_t *find(uint8_t *buckets, size_t count, const uint8_t *id) {
  size_t bucket = word(id) % count;
  for (size_t probes = 0; probes < count; probes++) {
    uint8_t *at = buckets + bucket * RELEASE_BUCKET_BYTES;
    uint32_t mark = word(at + ID_BYTES);
    if (mark == EMPTY) return NULL;
    if (mark != DELETED && memcmp(at, id, ID_BYTES) == 0) return at;
    if (++bucket == count) bucket = 0;
  }
  return NULL;
}

struct released release_references(uint8_t *buckets, size_t bucket_count, const uint8_t *stream, size_t stream_bytes, const uint32_t *words, size_t references, int parts, uint32_t *left) {
  struct released sums = {0, 0, 0};
  for (size_t number = 0; number < references; number++, words += RELEASE_REFERENCE_WORDS) {
    uint8_t *at = bucket_count > 0 && words[0] <= stream_bytes && stream_bytes - words[0] >= ID_BYTES ? find(buckets, bucket_count, stream + words[0]) : NULL;
    uint32_t count = at ? word(at + ID_BYTES) : 0;
    if (count > 0) {
      if (parts || words[3] == 0) {
        sums.size += word(at + ID_BYTES + 4);
        sums.csize += word(at + ID_BYTES + 8);
      }
      if (count >= LIMIT) continue;
      count--;
      memcpy(at + ID_BYTES, &count, 4);
      if (count > 0) continue;
      left[2 * sums.left] = (uint32_t)number;
      left[2 * sums.left++ + 1] = RELEASE_LAST;
    } else {
      left[2 * sums.left] = (uint32_t)number;
      left[2 * sums.left++ + 1] = RELEASE_UNKNOWN;
    }
  }
  return sums;
}
