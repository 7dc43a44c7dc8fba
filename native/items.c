#include "items.h"

#include <stdlib.h>
#include <string.h>

struct cursor {
  const uint8_t *data;
  size_t at, end;
};

/* The big-endian number of `width` bytes behind the lead byte; steps over both. */
static int wide(struct cursor *c, size_t width, uint64_t *value) {
  if (c->end - c->at < 1 + width) return ITEMS_CUT;
  uint64_t v = 0;
  for (size_t i = 1; i <= width; i++) v = v << 8 | c->data[c->at + i];
  c->at += 1 + width;
  *value = v;
  return ITEMS_ALL;
}

static int header(struct cursor *c, uint8_t fix, uint8_t mask, uint8_t lead16, uint64_t *count) {
  if (c->at >= c->end) return ITEMS_CUT;
  uint8_t lead = c->data[c->at];
  if ((lead & ~mask) == fix) {
    c->at++;
    *count = lead & mask;
    return ITEMS_ALL;
  }
  if (lead == lead16) return wide(c, 2, count);
  if (lead == lead16 + 1) return wide(c, 4, count);
  return ITEMS_MALFORMED;
}

/* raw, and the later str 8 and bin; steps over all of it. */
static int raw(struct cursor *c, size_t *start, size_t *length) {
  if (c->at >= c->end) return ITEMS_CUT;
  uint8_t lead = c->data[c->at];
  uint64_t bytes;
  int status;
  if (lead >= 0xa0 && lead <= 0xbf) {
    c->at++;
    bytes = lead & 0x1f;
  } else if (lead == 0xda || lead == 0xc5) {
    if ((status = wide(c, 2, &bytes))) return status;
  } else if (lead == 0xdb || lead == 0xc6) {
    if ((status = wide(c, 4, &bytes))) return status;
  } else if (lead == 0xd9 || lead == 0xc4) {
    if ((status = wide(c, 1, &bytes))) return status;
  } else {
    return ITEMS_MALFORMED;
  }
  if (c->end - c->at < bytes) return ITEMS_CUT;
  *start = c->at;
  *length = (size_t)bytes;
  c->at += bytes;
  return ITEMS_ALL;
}

/* One value of any kind; without recursion, so that no depth hurts. */
static int skip(struct cursor *c) {
  uint64_t pending = 1;
  while (pending > 0) {
    pending--;
    if (c->at >= c->end) return ITEMS_CUT;
    uint8_t lead = c->data[c->at];
    uint64_t count;
    size_t start, length;
    int status = ITEMS_ALL;
    if (lead < 0x80 || lead >= 0xe0 || lead == 0xc0 || lead == 0xc2 || lead == 0xc3) {
      c->at++;
    } else if (lead <= 0x8f || lead == 0xde || lead == 0xdf) {
      if (!(status = header(c, 0x80, 0x0f, 0xde, &count))) pending += 2 * count;
    } else if (lead <= 0x9f || lead == 0xdc || lead == 0xdd) {
      if (!(status = header(c, 0x90, 0x0f, 0xdc, &count))) pending += count;
    } else if (lead >= 0xcc && lead <= 0xd3) {
      status = wide(c, (size_t)1 << (lead & 3), &count);
    } else {
      status = raw(c, &start, &length);
    }
    if (status) return status;
    /* Each value takes a byte at least. */
    if (pending > c->end - c->at) return ITEMS_CUT;
  }
  return ITEMS_ALL;
}

static int number(struct cursor *c, uint32_t *value) {
  if (c->at >= c->end) return ITEMS_CUT;
  uint8_t lead = c->data[c->at];
  uint64_t found;
  if (lead < 0x80) {
    c->at++;
    found = lead;
  } else if (lead >= 0xcc && lead <= 0xcf) {
    int status = wide(c, (size_t)1 << (lead & 3), &found);
    if (status) return status;
  } else {
    return ITEMS_MALFORMED;
  }
  if (found > UINT32_MAX) return ITEMS_MALFORMED;
  *value = (uint32_t)found;
  return ITEMS_ALL;
}

static int append(struct item_references *into, size_t id, uint32_t size, uint32_t csize, int part) {
  if (into->count == into->capacity) {
    size_t capacity = into->capacity ? into->capacity * 2 : 256;
    uint32_t *grown = realloc(into->words, capacity * 4 * sizeof *grown);
    if (!grown) return ITEMS_NO_MEMORY;
    into->words = grown;
    into->capacity = capacity;
  }
  uint32_t *row = into->words + into->count++ * 4;
  row[0] = (uint32_t)id;
  row[1] = size;
  row[2] = csize;
  row[3] = (uint32_t)part;
  return ITEMS_ALL;
}

/* The list of an item that is known to be whole: nothing in it can be cut. */
static int chunk_list(struct cursor c, int part, struct item_references *into) {
  uint64_t count, three;
  if (header(&c, 0x90, 0x0f, 0xdc, &count)) return ITEMS_MALFORMED;
  for (; count > 0; count--) {
    size_t id, length;
    uint32_t size, csize;
    if (header(&c, 0x90, 0x0f, 0xdc, &three) || three != 3 || raw(&c, &id, &length) || length != 32 || number(&c, &size) || number(&c, &csize)) return ITEMS_MALFORMED;
    int status = append(into, id, size, csize, part);
    if (status) return status;
  }
  return ITEMS_ALL;
}

static int item(struct cursor *c, struct item_references *into) {
  uint64_t count;
  size_t chunks = 0;
  int part = 0, status = header(c, 0x80, 0x0f, 0xde, &count);
  if (status) return status;
  for (; count > 0; count--) {
    size_t key, length;
    if ((status = raw(c, &key, &length))) return status;
    if (length == 6 && !memcmp(c->data + key, "chunks", 6)) {
      if (c->at >= c->end) return ITEMS_CUT;
      if (c->data[c->at] != 0xc0) chunks = c->at;
    } else if (length == 4 && !memcmp(c->data + key, "part", 4)) {
      part = 1;
    }
    if ((status = skip(c))) return status;
  }
  if (!chunks) return ITEMS_ALL;
  /* Only now is it certain that the whole item is here and nothing is counted twice. */
  struct cursor list = {c->data, chunks, c->at};
  if ((status = chunk_list(list, part, into))) return status;
  if (part) into->parts++;
  else into->files++;
  return ITEMS_ALL;
}

int items_references(const uint8_t *data, size_t length, size_t *consumed, struct item_references *into) {
  struct cursor c = {data, 0, length};
  *consumed = 0;
  while (c.at < c.end) {
    size_t before = into->count;
    int status = item(&c, into);
    if (status) {
      into->count = before;
      return status;
    }
    *consumed = c.at;
  }
  return ITEMS_ALL;
}
