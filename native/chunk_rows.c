/* Straight-line reading of the encodings that Borg and borgfs write; all others are left to the caller. */
#include "chunk_rows.h"

#include <string.h>

/* An unsigned integer of at most 32 bits at *at, little endian to `into`; *at moves behind it. 0 if there is none before `end`. */
static int read_uint(const uint8_t **at, const uint8_t *end, uint8_t *into) {
  const uint8_t *p = *at;
  if (p >= end) return 0;
  uint8_t lead = *p++;
  uint32_t value;
  size_t width;
  if (lead < 0x80) {
    value = lead;
    width = 0;
  } else if (lead >= 0xcc && lead <= 0xce) {
    width = (size_t)1 << (lead - 0xcc);
    if ((size_t)(end - p) < width) return 0;
    value = 0;
    for (size_t i = 0; i < width; i++) value = value << 8 | p[i];
  } else {
    return 0;
  }
  for (int i = 0; i < 4; i++) into[i] = (uint8_t)(value >> 8 * i);
  *at = p + width;
  return 1;
}

int64_t chunk_rows_unpack(const uint8_t *data, size_t length, size_t position, size_t count, uint8_t *rows) {
  if (position > length) return -1;
  const uint8_t *at = data + position, *end = data + length;
  for (size_t row = 0; row < count; row++, rows += CHUNK_ROW_BYTES) {
    /* fixarray 3; raw 16 of 32 bytes, or bin 8 */
    if (end - at < 36 || at[0] != 0x93) return -1;
    size_t head;
    if (at[1] == 0xda && at[2] == 0 && at[3] == 32) head = 4;
    else if (at[1] == 0xc4 && at[2] == 32) head = 3;
    else return -1;
    if ((size_t)(end - at) < head + 32) return -1;
    memcpy(rows, at + head, 32);
    at += head + 32;
    if (!read_uint(&at, end, rows + 32) || !read_uint(&at, end, rows + 36)) return -1;
  }
  return at - data;
}
