#include "items.h"

#include <string.h>

static int need(const struct msgpack *c, size_t count) { return (size_t)(c->end - c->at) >= count; }

static uint64_t big_endian(const uint8_t *bytes, int width) {
  uint64_t value = 0;
  while (width-- > 0) value = value << 8 | *bytes++;
  return value;
}

/* A count or length behind its lead byte: `fix` with its mask, then leads for 8 (0: none), 16 and 32 bits. */
static int read_length(struct msgpack *c, uint8_t fix, uint8_t mask, uint8_t lead8, uint8_t lead16, size_t *length) {
  if (!need(c, 1)) return ITEM_TRUNCATED;
  uint8_t lead = *c->at;
  int width;
  if ((lead & ~mask & 0xff) == fix) {
    *length = lead & mask;
    c->at++;
    return ITEM_OK;
  }
  if (lead8 && lead == lead8) width = 1;
  else if (lead == lead16) width = 2;
  else if (lead == lead16 + 1) width = 4;
  else return ITEM_INVALID;
  if (!need(c, 1 + (size_t)width)) return ITEM_TRUNCATED;
  *length = (size_t)big_endian(c->at + 1, width);
  c->at += 1 + width;
  return ITEM_OK;
}

static int read_map(struct msgpack *c, size_t *count) { return read_length(c, 0x80, 0x0f, 0, 0xde, count); }
static int read_array(struct msgpack *c, size_t *count) { return read_length(c, 0x90, 0x0f, 0, 0xdc, count); }

static int read_raw(struct msgpack *c, struct span *raw) {
  size_t length;
  if (!need(c, 1)) return ITEM_TRUNCATED;
  uint8_t lead = *c->at;
  int status;
  if (lead >= 0xc4 && lead <= 0xc6) {
    int width = 1 << (lead - 0xc4);
    if (!need(c, 1 + (size_t)width)) return ITEM_TRUNCATED;
    length = (size_t)big_endian(c->at + 1, width);
    c->at += 1 + width;
  } else if ((status = read_length(c, 0xa0, 0x1f, 0xd9, 0xda, &length)) != ITEM_OK) return status;
  if (!need(c, length)) return ITEM_TRUNCATED;
  raw->data = c->at;
  raw->length = length;
  c->at += length;
  return ITEM_OK;
}

static int is_nil(struct msgpack *c) {
  if (!need(c, 1) || *c->at != 0xc0) return 0;
  c->at++;
  return 1;
}

/* Any integer; beyond int64 it is INT64_MAX and *large is 1. */
static int read_int(struct msgpack *c, int64_t *value, int *large) {
  *large = 0;
  if (!need(c, 1)) return ITEM_TRUNCATED;
  uint8_t lead = *c->at;
  if (lead < 0x80 || lead >= 0xe0) {
    *value = lead < 0x80 ? lead : (int8_t)lead;
    c->at++;
    return ITEM_OK;
  }
  if (lead < 0xcc || lead > 0xd3) return ITEM_INVALID;
  int width = 1 << (lead & 3);
  if (!need(c, 1 + (size_t)width)) return ITEM_TRUNCATED;
  uint64_t bits = big_endian(c->at + 1, width);
  c->at += 1 + width;
  if (lead >= 0xd0) {
    int unused = 64 - 8 * width;
    *value = (int64_t)(bits << unused) >> unused;
  } else if (bits > INT64_MAX) {
    *value = INT64_MAX;
    *large = 1;
  } else *value = (int64_t)bits;
  return ITEM_OK;
}

/* An integer that JavaScript holds exactly. */
static int read_number(struct msgpack *c, int64_t *value) {
  int large, status = read_int(c, value, &large);
  if (status != ITEM_OK) return status;
  return large || *value > 9007199254740991 || *value < -9007199254740991 ? ITEM_INVALID : ITEM_OK;
}

static int read_number32(struct msgpack *c, int nil_allowed, uint32_t *value) {
  int64_t number = 0;
  if (nil_allowed && is_nil(c)) {
    *value = 0;
    return ITEM_OK;
  }
  int status = read_number(c, &number);
  *value = (uint32_t)number;
  return status;
}

/* Nanoseconds: an integer, or outside int64 a raw with its little-endian bytes. */
static int read_time(struct msgpack *c, int64_t *ns) {
  int large;
  if (!need(c, 1)) return ITEM_TRUNCATED;
  uint8_t lead = *c->at;
  if (lead < 0xa0 || (lead >= 0xcc && lead <= 0xd3) || lead >= 0xe0) return read_int(c, ns, &large);
  struct span raw;
  int status = read_raw(c, &raw);
  if (status != ITEM_OK) return status;
  int negative = raw.length > 0 && raw.data[raw.length - 1] >= 0x80;
  uint64_t bits = negative ? UINT64_MAX : 0;
  for (size_t i = raw.length < 8 ? raw.length : 8; i-- > 0;) bits = bits << 8 | raw.data[i];
  /* Whether the bytes above say more than the sign. */
  int fits = (bits >> 63 != 0) == negative;
  for (size_t i = 8; i < raw.length; i++) fits &= raw.data[i] == (negative ? 0xff : 0);
  *ns = fits ? (int64_t)bits : negative ? INT64_MIN : INT64_MAX;
  return ITEM_OK;
}

/* Steps over any value; counts nesting instead of recursing. */
static int skip(struct msgpack *c) {
  uint64_t pending = 1;
  while (pending > 0) {
    pending--;
    if (!need(c, 1)) return ITEM_TRUNCATED;
    uint8_t lead = *c->at;
    struct span raw;
    size_t count;
    int status = ITEM_OK, large;
    int64_t number;
    if (lead == 0xc0 || lead == 0xc2 || lead == 0xc3) c->at++;
    else if (lead < 0x80 || lead >= 0xe0 || (lead >= 0xcc && lead <= 0xd3)) status = read_int(c, &number, &large);
    else if ((lead >= 0xa0 && lead <= 0xbf) || (lead >= 0xc4 && lead <= 0xc6) || (lead >= 0xd9 && lead <= 0xdb)) status = read_raw(c, &raw);
    else if (lead <= 0x8f || lead == 0xde || lead == 0xdf) {
      if ((status = read_map(c, &count)) == ITEM_OK) pending += 2 * (uint64_t)count;
    } else if (lead <= 0x9f || lead == 0xdc || lead == 0xdd) {
      if ((status = read_array(c, &count)) == ITEM_OK) pending += count;
    } else status = ITEM_INVALID;
    if (status != ITEM_OK) return status;
    if (pending > (uint64_t)(c->end - c->at)) return ITEM_TRUNCATED;
  }
  return ITEM_OK;
}

static int read_chunk(struct msgpack *c, const uint8_t **id, uint32_t *size, uint32_t *csize) {
  size_t three;
  struct span raw;
  int64_t numbers[2];
  int status;
  if ((status = read_array(c, &three)) != ITEM_OK) return status;
  if (three != 3) return ITEM_INVALID;
  if ((status = read_raw(c, &raw)) != ITEM_OK) return status;
  if (raw.length != 32) return ITEM_INVALID;
  for (int i = 0; i < 2; i++) {
    if ((status = read_number(c, &numbers[i])) != ITEM_OK) return status;
    if (numbers[i] < 0 || numbers[i] > UINT32_MAX) return ITEM_INVALID;
  }
  *id = raw.data;
  *size = (uint32_t)numbers[0];
  *csize = (uint32_t)numbers[1];
  return ITEM_OK;
}

static int read_chunks(struct msgpack *c, struct msgpack *entries, size_t *count, int *present) {
  *present = !is_nil(c);
  if (!*present) return ITEM_OK;
  int status = read_array(c, count);
  if (status != ITEM_OK) return status;
  if (*count > (size_t)(c->end - c->at)) return ITEM_TRUNCATED;
  *entries = *c;
  for (size_t i = 0; i < *count; i++) {
    const uint8_t *id;
    uint32_t size, csize;
    if ((status = read_chunk(c, &id, &size, &csize)) != ITEM_OK) return status;
  }
  return ITEM_OK;
}

static int read_xattrs(struct msgpack *c, struct item *item) {
  int status = read_map(c, &item->xattr_count);
  if (status != ITEM_OK) return status;
  if (item->xattr_count > (size_t)(c->end - c->at)) return ITEM_TRUNCATED;
  item->xattrs = *c;
  for (size_t i = 0; i < item->xattr_count; i++) {
    struct span raw;
    if ((status = read_raw(c, &raw)) != ITEM_OK) return status;
    if (!is_nil(c) && (status = read_raw(c, &raw)) != ITEM_OK) return status;
  }
  return ITEM_OK;
}

static int is(const struct span *key, const char *name) { return key->length == strlen(name) && memcmp(key->data, name, key->length) == 0; }

static int read_optional_raw(struct msgpack *c, struct item *item, struct span *raw, unsigned bit) {
  item->has &= ~bit;
  if (is_nil(c)) return ITEM_OK;
  item->has |= bit;
  return read_raw(c, raw);
}

static int read_field(struct msgpack *c, const struct span *key, struct item *item) {
  int64_t number;
  int status, present;
  struct msgpack entries;
  size_t count;
  switch (key->length ? key->data[0] : 0) {
    case 'p':
      if (is(key, "path")) return item->has |= ITEM_PATH, read_raw(c, &item->path);
      if (is(key, "part")) return item->has |= ITEM_PART, read_number(c, &number);
      break;
    case 'm':
      if (is(key, "mode")) return read_number32(c, 0, &item->mode);
      if (is(key, "mtime")) return read_time(c, &item->mtime_ns);
      break;
    case 'a':
      if (is(key, "atime")) return item->has |= ITEM_ATIME, read_time(c, &item->atime_ns);
      if (is(key, "acl_access")) return item->has |= ITEM_ACL_ACCESS, read_raw(c, &item->acl_access);
      if (is(key, "acl_default")) return item->has |= ITEM_ACL_DEFAULT, read_raw(c, &item->acl_default);
      break;
    case 'b':
      if (is(key, "bsdflags")) return read_number32(c, 0, &item->bsdflags);
      break;
    case 'c':
      if (is(key, "ctime")) return item->has |= ITEM_CTIME, read_time(c, &item->ctime_ns);
      if (is(key, "chunks")) {
        item->chunk_count = 0;
        if ((status = read_chunks(c, &item->chunks, &item->chunk_count, &present)) == ITEM_OK && present) item->has |= ITEM_CHUNKS;
        return status;
      }
      if (is(key, "chunks_healthy")) {
        if ((status = read_chunks(c, &entries, &count, &present)) == ITEM_OK && present) item->has |= ITEM_DAMAGED;
        return status;
      }
      break;
    case 'u':
      if (is(key, "uid")) return read_number32(c, 1, &item->uid);
      if (is(key, "user")) return read_optional_raw(c, item, &item->user, ITEM_USER);
      break;
    case 'g':
      if (is(key, "gid")) return read_number32(c, 1, &item->gid);
      if (is(key, "group")) return read_optional_raw(c, item, &item->group, ITEM_GROUP);
      break;
    case 's':
      if (is(key, "size")) {
        if ((status = read_number(c, &number)) != ITEM_OK) return status;
        item->has |= ITEM_SIZE;
        item->size = (double)number;
        return ITEM_OK;
      }
      if (is(key, "source")) return item->has |= ITEM_SOURCE, read_raw(c, &item->source);
      break;
    case 'r':
      if (is(key, "rdev")) return read_number32(c, 0, &item->rdev);
      break;
    case 'x':
      if (is(key, "xattrs")) return item->has |= ITEM_XATTRS, read_xattrs(c, item);
      break;
  }
  return skip(c);
}

int item_read(struct msgpack *cursor, struct item *item) {
  struct msgpack c = *cursor;
  size_t count;
  memset(item, 0, sizeof *item);
  int status = read_map(&c, &count);
  for (; status == ITEM_OK && count > 0; count--) {
    struct span key;
    status = read_raw(&c, &key);
    if (status == ITEM_OK) status = read_field(&c, &key, item);
  }
  if (status != ITEM_OK) return status;
  if (!(item->has & ITEM_PATH)) return ITEM_INVALID;
  *cursor = c;
  return ITEM_OK;
}

int item_read_references(struct msgpack *cursor, struct msgpack *chunks, size_t *count, int *listed, int *part) {
  struct msgpack c = *cursor;
  size_t left, found;
  struct msgpack entries;
  *count = 0;
  *listed = *part = 0;
  int status = read_map(&c, &left);
  for (; status == ITEM_OK && left > 0; left--) {
    struct span key;
    int present = 0;
    if ((status = read_raw(&c, &key)) != ITEM_OK) break;
    if (is(&key, "chunks")) {
      if ((status = read_chunks(&c, &entries, &found, &present)) == ITEM_OK && present) {
        *chunks = entries;
        *count = found;
        *listed = 1;
      }
    } else {
      if (is(&key, "part")) *part = 1;
      status = skip(&c);
    }
  }
  if (status == ITEM_OK) *cursor = c;
  return status;
}

void item_chunk(struct msgpack *chunks, const uint8_t **id, uint32_t *size, uint32_t *csize) { read_chunk(chunks, id, size, csize); }

void item_xattr(struct msgpack *xattrs, struct span *name, struct span *value) {
  static const struct span none = {(const uint8_t *)"", 0};
  read_raw(xattrs, name);
  if (is_nil(xattrs)) *value = none;
  else read_raw(xattrs, value);
}
