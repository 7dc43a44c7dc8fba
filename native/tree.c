#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TYPE_MASK = 0170000, TYPE_DIRECTORY = 0040000, TYPE_REGULAR = 0100000, TYPE_LINK = 0120000 };
/* Flags of a row that are stored; HAS_XATTRS is only for building. */
enum { ROW_DAMAGED = 1, ROW_REPLACED = 2, ROW_SUPPLIED = 4, ROW_LINK = 8, ROW_LINKED = 16, ROW_STORED = 31, HAS_XATTRS = 128 };
enum { CHUNK_ROW = 40, ACCESS_NUMBERS = 12, NO_NAME = 0xffff, MAX_NAME = 0xfff0, MAX_FILE_NAME = 1024, ACL_ACCESS = 0xfffe, ACL_DEFAULT = 0xfffd, BSD_FLAGS = 0xfffc };
/* The first two rows of the table of owners and modes, which every tree has: directories that no item describes, names of hard links. */
enum { ACCESS_SUPPLIED, ACCESS_NONE, ACCESS_FIRST };
static const size_t LIMIT = UINT32_MAX;

/* FIRST: a directory's first child, a file's first chunk row, where a link's target starts, a device's number, a hard link's target. */
enum { PARENT, NAME_START, FIRST, COUNT, NEXT_SIBLING, ACCESS, FLAGS, SIZE, MTIME, ATIME, CTIME, ROW_COLUMNS };
static const uint8_t widths[ROW_COLUMNS] = {4, 4, 4, 4, 4, 4, 1, 8, 8, 8, 8};
/* Behind the row columns in the image. XATTRS: the rows that have some, then their starts, then their ends in BLOBS. LINKED: rows, then numbers of names. */
enum { NAMES = ROW_COLUMNS, BLOBS, XATTRS, LINKED, OWNERS, SLOTS, KEY };

struct pool {
  uint8_t *bytes;
  size_t length, room;
};

struct xattr_place {
  uint32_t row, start, end, order;
};

/* Each owner with each mode once, packed as tree-columns.ts says. */
struct accesses {
  struct pool packed, starts, modes; /* starts and modes: uint32_t, of each */
  struct name_key key;
  uint32_t *slots;
  size_t slot_count;
  uint32_t last;
  struct pool item; /* of the item in hand */
};

struct tree {
  struct tree_options options;
  struct tree_calls calls;
  void *column[ROW_COLUMNS];
  size_t rows, room;
  struct pool names, chunks, blobs, xattrs, linked; /* xattrs: of struct xattr_place; linked: when it is finished, rows, then counts */
  struct accesses accesses;
  uint32_t *slots;
  size_t slot_count;
  int any_atime;
  struct pool last_directory;
  uint32_t last_directory_row;
};

static uint32_t *u32(struct tree *t, int column) { return t->column[column]; }
static uint8_t *flags(struct tree *t) { return t->column[FLAGS]; }
static int64_t *i64(struct tree *t, int column) { return t->column[column]; }

/* Smaller memory comes from the heap. */
#define MAPPED ((size_t)256 * 1024)
#define STEP ((size_t)1 << 20)

/*
 * realloc for what doubles until it is large: pages move without being copied, what is not touched costs nothing, and what is freed is
 * gone, where the heap would keep it. NULL: no memory, and the old one is still there.
 */
static void *resize(void *old, size_t had, size_t wanted) {
  if (had < MAPPED && wanted < MAPPED) return realloc(old, wanted);
  if (had >= MAPPED && wanted >= MAPPED) {
    void *moved = mremap(old, had, wanted, MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
  }
  if (had >= MAPPED) {
    /* Its length tells where memory came from, and so how it is freed. */
    void *small = malloc(wanted);
    if (!small) return NULL;
    memcpy(small, old, wanted);
    munmap(old, had);
    return small;
  }
  void *mapped = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return NULL;
  if (had) memcpy(mapped, old, had);
  free(old);
  return mapped;
}

static void release(void *memory, size_t had) {
  if (had >= MAPPED) munmap(memory, had);
  else free(memory);
}

static void *zeros(size_t wanted) {
  void *memory = resize(NULL, 0, wanted);
  if (memory && wanted < MAPPED) memset(memory, 0, wanted);
  return memory;
}

static void drain(struct pool *pool) {
  release(pool->bytes, pool->room);
  memset(pool, 0, sizeof *pool);
}

/* Room for `more` bytes; 0 without memory or past what 32 bits can tell. */
static int reserve(struct pool *pool, size_t more) {
  if (more <= pool->room - pool->length) return 1;
  if (more > LIMIT - pool->length) return 0;
  size_t room = pool->room * 2 > LIMIT ? LIMIT : pool->room * 2;
  if (room < pool->length + more) room = pool->length + more;
  uint8_t *grown = resize(pool->bytes, pool->room, room);
  if (!grown) return 0;
  pool->bytes = grown;
  pool->room = room;
  return 1;
}

static int append(struct pool *pool, const void *bytes, size_t length) {
  if (!reserve(pool, length)) return 0;
  if (length) memcpy(pool->bytes + pool->length, bytes, length);
  pool->length += length;
  return 1;
}

/* --- names --- */

/* The slot that holds (parent, name), or the empty one where it belongs. */
static size_t find_slot(struct tree *t, uint32_t parent, const uint8_t *name, size_t length) {
  const uint32_t *starts = u32(t, NAME_START), *parents = u32(t, PARENT);
  size_t mask = t->slot_count - 1;
  for (size_t slot = hash_name(t->options.key, parent, name, length) & mask;; slot = (slot + 1) & mask) {
    uint32_t found = t->slots[slot];
    if (!found) return slot;
    uint32_t row = found - 1;
    if (parents[row] == parent && starts[row + 1] - starts[row] == length && memcmp(t->names.bytes + starts[row], name, length) == 0) return slot;
  }
}

static int grow_rows(struct tree *t) {
  size_t room = t->room * 2;
  for (int c = 0; c < ROW_COLUMNS; c++) {
    /* One more value for the end of the last name. What is not used yet is not touched, so it costs no memory. */
    uint8_t *grown = resize(t->column[c], (t->room + 1) * widths[c], (room + 1) * widths[c]);
    if (!grown) {
      /* Some have more room now than is noted, and must be freed by what they have. */
      while (c-- > 0) t->column[c] = resize(t->column[c], (room + 1) * widths[c], (t->room + 1) * widths[c]);
      return 0;
    }
    t->column[c] = grown;
  }
  t->room = room;
  return 1;
}

static int grow_slots(struct tree *t) {
  size_t count = t->slot_count * 2, mask = count - 1;
  uint32_t *slots = zeros(count * sizeof *slots);
  if (!slots) return 0;
  const uint32_t *starts = u32(t, NAME_START);
  for (size_t old = 0; old < t->slot_count; old++) {
    uint32_t found = t->slots[old];
    if (!found) continue;
    uint32_t row = found - 1;
    size_t slot = hash_name(t->options.key, u32(t, PARENT)[row], t->names.bytes + starts[row], starts[row + 1] - starts[row]) & mask;
    while (slots[slot]) slot = (slot + 1) & mask;
    slots[slot] = found;
  }
  release(t->slots, t->slot_count * sizeof *slots);
  t->slots = slots;
  t->slot_count = count;
  return 1;
}

/* A row of that name without attributes, last of its directory; takes over the name's slot. */
static int new_row(struct tree *t, uint32_t parent, const uint8_t *name, size_t length, uint32_t *made) {
  if (t->rows + 1 >= LIMIT) return TREE_FULL;
  if (t->rows + 1 >= t->room && !grow_rows(t)) return TREE_MEMORY;
  if (t->rows > t->slot_count / 10 * 7 && !grow_slots(t)) return TREE_MEMORY;
  uint32_t row = (uint32_t)t->rows;
  size_t slot = row ? find_slot(t, parent, name, length) : 0;
  if (!append(&t->names, name, length)) return TREE_FULL;
  t->rows++;
  if (row == 0) u32(t, NAME_START)[0] = 0;
  u32(t, NAME_START)[row + 1] = (uint32_t)t->names.length;
  u32(t, PARENT)[row] = parent;
  u32(t, FIRST)[row] = u32(t, COUNT)[row] = u32(t, NEXT_SIBLING)[row] = 0;
  u32(t, ACCESS)[row] = ACCESS_NONE;
  flags(t)[row] = 0;
  i64(t, SIZE)[row] = i64(t, MTIME)[row] = i64(t, CTIME)[row] = 0;
  if (t->any_atime) i64(t, ATIME)[row] = 0;
  *made = row;
  if (row == 0) return ITEM_OK;
  /* A directory's COUNT is its last child. */
  uint32_t last = u32(t, COUNT)[parent];
  if (last) u32(t, NEXT_SIBLING)[last] = row;
  else u32(t, FIRST)[parent] = row;
  u32(t, COUNT)[parent] = row;
  t->slots[slot] = row + 1;
  return ITEM_OK;
}

/* Another item takes the row's name. */
static void retire(struct tree *t, uint32_t row) {
  flags(t)[row] |= ROW_REPLACED;
  t->last_directory.length = 0;
}

/* A directory that no item describes: owner, mode and times are whoever shows it's affair. */
static void supply(struct tree *t, uint32_t row) {
  u32(t, ACCESS)[row] = ACCESS_SUPPLIED;
  flags(t)[row] = ROW_SUPPLIED;
}

static uint32_t mode_of(struct tree *t, uint32_t row) { return ((uint32_t *)t->accesses.modes.bytes)[u32(t, ACCESS)[row]]; }
static int is_directory(struct tree *t, uint32_t row) { return (mode_of(t, row) & TYPE_MASK) == TYPE_DIRECTORY; }
static int is_dot(const uint8_t *name, size_t length) { return length == 1 && name[0] == '.'; }
static int is_unsafe(const uint8_t *name, size_t length) { return length > MAX_FILE_NAME || (length == 2 && name[0] == '.' && name[1] == '.') || memchr(name, 0, length); }

/* Not an error: no mount can show the path. */
enum { UNSAFE = 1 };

static size_t name_end(const struct span *path, size_t start, size_t end) {
  const uint8_t *slash = memchr(path->data + start, '/', end - start);
  return slash ? (size_t)(slash - path->data) : end;
}

/* The row of the directory path[0, end), supplied where missing. Consecutive items mostly share it. */
static int directory(struct tree *t, const struct span *path, size_t end, uint32_t *found_row) {
  *found_row = 0;
  if (end == 0) return ITEM_OK;
  if (end == t->last_directory.length && memcmp(t->last_directory.bytes, path->data, end) == 0) {
    *found_row = t->last_directory_row;
    return ITEM_OK;
  }
  uint32_t row = 0;
  for (size_t start = 0; start < end;) {
    size_t next = name_end(path, start, end);
    const uint8_t *name = path->data + start;
    size_t length = next - start;
    if (length && !is_dot(name, length)) {
      if (is_unsafe(name, length)) return UNSAFE;
      uint32_t found = t->slots[find_slot(t, row, name, length)];
      if (found && is_directory(t, found - 1)) row = found - 1;
      else {
        if (found) retire(t, found - 1);
        int status = new_row(t, row, name, length, &row);
        if (status != ITEM_OK) return status;
        supply(t, row);
      }
    }
    start = next + 1;
  }
  t->last_directory.length = 0;
  if (!append(&t->last_directory, path->data, end)) return TREE_MEMORY;
  t->last_directory_row = row;
  *found_row = row;
  return ITEM_OK;
}

/* The row that an item of this path fills: a new one, or the directory of that name that is there. */
static int row_for(struct tree *t, const struct span *path, int want_directory, uint32_t *row) {
  size_t end = path->length, start;
  while (end > 0 && path->data[end - 1] == '/') end--;
  for (start = end; start > 0 && path->data[start - 1] != '/';) start--;
  uint32_t parent;
  int status = directory(t, path, start, &parent);
  if (status != ITEM_OK) return status;
  const uint8_t *name = path->data + start;
  size_t length = end - start;
  if (length == 0 || is_dot(name, length)) {
    *row = parent;
    return want_directory ? ITEM_OK : UNSAFE;
  }
  if (is_unsafe(name, length)) return UNSAFE;
  uint32_t found = t->slots[find_slot(t, parent, name, length)];
  if (found) {
    if (want_directory && is_directory(t, found - 1)) {
      *row = found - 1;
      return ITEM_OK;
    }
    retire(t, found - 1);
  }
  return new_row(t, parent, name, length, row);
}

/* The row with the attributes of a path; 0 if there is none. */
static uint32_t find_path(struct tree *t, const struct span *path) {
  uint32_t row = 0;
  for (size_t start = 0; start < path->length;) {
    size_t end = name_end(path, start, path->length);
    if (end > start && !is_dot(path->data + start, end - start)) {
      uint32_t found = t->slots[find_slot(t, row, path->data + start, end - start)];
      if (!found) return 0;
      row = found - 1;
      if (flags(t)[row] & ROW_LINK) row = u32(t, FIRST)[row];
    }
    start = end + 1;
  }
  return row;
}

/* --- attributes --- */

static void put16(uint8_t *to, uint32_t value) {
  to[0] = (uint8_t)value;
  to[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *to, uint32_t value) {
  put16(to, value);
  put16(to + 2, value >> 16);
}

static int add_access(struct accesses *a, uint32_t mode, const struct pool *packed) {
  uint32_t start = (uint32_t)a->packed.length;
  return append(&a->packed, packed->bytes, packed->length) && append(&a->starts, &start, 4) && append(&a->modes, &mode, 4);
}

static uint32_t access_count(const struct accesses *a) { return (uint32_t)(a->starts.length / 4); }

static struct span packed_access(const struct accesses *a, uint32_t index) {
  const uint32_t *starts = (const uint32_t *)a->starts.bytes;
  size_t end = index + 1 < access_count(a) ? starts[index + 1] : a->packed.length;
  struct span found = {a->packed.bytes + starts[index], end - starts[index]};
  return found;
}

static int same_access(const struct accesses *a, uint32_t index) {
  struct span packed = packed_access(a, index);
  return packed.length == a->item.length && memcmp(packed.data, a->item.bytes, packed.length) == 0;
}

static size_t access_slot(const struct accesses *a, const uint32_t *slots, size_t count, struct span packed) {
  size_t slot = hash_name(a->key, 0, packed.data, packed.length) & (count - 1);
  while (slots[slot]) {
    struct span found = packed_access(a, slots[slot] - 1);
    if (found.length == packed.length && memcmp(found.data, packed.data, packed.length) == 0) break;
    slot = (slot + 1) & (count - 1);
  }
  return slot;
}

static int pack_owner(struct pool *into, int has, const struct span *name) {
  uint8_t length[2];
  /* No system has names so long. */
  int there = has && name->length <= MAX_NAME;
  put16(length, there ? (uint32_t)name->length : NO_NAME);
  return append(into, length, 2) && (!there || append(into, name->data, name->length));
}

/* The row of the table for the item's owner and mode. */
static int access_of(struct tree *t, const struct item *item, uint32_t *index) {
  struct accesses *a = &t->accesses;
  uint8_t numbers[ACCESS_NUMBERS];
  put32(numbers, item->mode);
  put32(numbers + 4, item->uid);
  put32(numbers + 8, item->gid);
  a->item.length = 0;
  if (!append(&a->item, numbers, sizeof numbers) || !pack_owner(&a->item, item->has & ITEM_USER, &item->user) || !pack_owner(&a->item, item->has & ITEM_GROUP, &item->group)) return TREE_MEMORY;
  if (a->last && same_access(a, a->last)) {
    *index = a->last;
    return ITEM_OK;
  }
  uint32_t count = access_count(a);
  if (count > a->slot_count / 2) {
    uint32_t *slots = zeros(a->slot_count * 2 * sizeof *slots);
    if (!slots) return TREE_MEMORY;
    for (uint32_t i = ACCESS_FIRST; i < count; i++) slots[access_slot(a, slots, a->slot_count * 2, packed_access(a, i))] = i + 1;
    release(a->slots, a->slot_count * sizeof *slots);
    a->slots = slots;
    a->slot_count *= 2;
  }
  struct span wanted = {a->item.bytes, a->item.length};
  size_t slot = access_slot(a, a->slots, a->slot_count, wanted);
  if (!a->slots[slot]) {
    if (!add_access(a, item->mode, &a->item)) return TREE_FULL;
    a->slots[slot] = count + 1;
  }
  *index = a->last = a->slots[slot] - 1;
  return ITEM_OK;
}

/* What stands in the table for no item: 16 bytes without names. */
static int begin_accesses(struct accesses *a) {
  a->slot_count = 64;
  if (!(a->slots = zeros(a->slot_count * sizeof *a->slots))) return 0;
  for (int which = ACCESS_SUPPLIED; which < ACCESS_FIRST; which++) {
    uint32_t mode = which == ACCESS_SUPPLIED ? TYPE_DIRECTORY | 0755 : 0;
    uint8_t packed[ACCESS_NUMBERS + 4] = {0};
    struct pool whole = {packed, sizeof packed, sizeof packed};
    put32(packed, mode);
    put32(packed + ACCESS_NUMBERS, 0xffffffff);
    if (!add_access(a, mode, &whole)) return 0;
  }
  return 1;
}

/* `kind`: the name's length, or what says that the value is an ACL as it is stored, or the file's flags. */
static int add_xattr(struct tree *t, uint32_t kind, struct span name, struct span value) {
  uint8_t lengths[6];
  put16(lengths, kind);
  put32(lengths + 2, (uint32_t)value.length);
  return append(&t->blobs, lengths, 2) && append(&t->blobs, name.data, name.length) && append(&t->blobs, lengths + 2, 4) &&
                 append(&t->blobs, value.data, value.length)
             ? ITEM_OK
             : TREE_FULL;
}

static int add_xattrs(struct tree *t, uint32_t row, const struct item *item) {
  size_t start = t->blobs.length;
  struct msgpack packed = item->xattrs;
  const struct span none = {NULL, 0};
  int status = ITEM_OK;
  for (size_t i = 0; i < item->xattr_count && status == ITEM_OK; i++) {
    struct span name, value;
    item_xattr(&packed, &name, &value);
    if (name.length <= MAX_NAME) status = add_xattr(t, (uint32_t)name.length, name, value);
  }
  if (status == ITEM_OK && item->has & ITEM_ACL_ACCESS) status = add_xattr(t, ACL_ACCESS, none, item->acl_access);
  if (status == ITEM_OK && item->has & ITEM_ACL_DEFAULT) status = add_xattr(t, ACL_DEFAULT, none, item->acl_default);
  if (status == ITEM_OK && item->bsdflags) {
    uint8_t bytes[4];
    put32(bytes, item->bsdflags);
    status = add_xattr(t, BSD_FLAGS, none, (struct span){bytes, sizeof bytes});
  }
  if (status != ITEM_OK) return status;
  struct xattr_place place = {row, (uint32_t)start, (uint32_t)t->blobs.length, (uint32_t)(t->xattrs.length / sizeof place)};
  if (place.end == place.start && !(flags(t)[row] & HAS_XATTRS)) return ITEM_OK;
  flags(t)[row] |= HAS_XATTRS;
  return append(&t->xattrs, &place, sizeof place) ? ITEM_OK : TREE_FULL;
}

static int add_content(struct tree *t, uint32_t row, const struct item *item) {
  size_t first = t->chunks.length / CHUNK_ROW;
  double size = 0;
  /* The pool counts bytes; a chunk list is bounded by chunk rows instead. */
  if (item->chunk_count > LIMIT - first) return TREE_FULL;
  size_t bytes = item->chunk_count * CHUNK_ROW;
  if (bytes > t->chunks.room - t->chunks.length) {
    size_t room = t->chunks.room * 2 > t->chunks.length + bytes ? t->chunks.room * 2 : t->chunks.length + bytes;
    uint8_t *grown = resize(t->chunks.bytes, t->chunks.room, room);
    if (!grown) return TREE_MEMORY;
    t->chunks.bytes = grown;
    t->chunks.room = room;
  }
  struct msgpack packed = item->chunks;
  for (size_t i = 0; i < item->chunk_count; i++) {
    const uint8_t *id;
    uint32_t numbers[2];
    item_chunk(&packed, &id, &numbers[0], &numbers[1]);
    uint8_t *at = t->chunks.bytes + t->chunks.length;
    memcpy(at, id, 32);
    memcpy(at + 32, numbers, 8);
    t->chunks.length += CHUNK_ROW;
    size += numbers[0];
  }
  u32(t, FIRST)[row] = (uint32_t)first;
  u32(t, COUNT)[row] = (uint32_t)item->chunk_count;
  ((double *)t->column[SIZE])[row] = item->has & ITEM_SIZE && item->size >= 0 ? item->size : size;
  return ITEM_OK;
}

static int describe(struct tree *t, uint32_t row, const struct item *item) {
  uint32_t type = item->mode & TYPE_MASK;
  int status = access_of(t, item, &u32(t, ACCESS)[row]);
  if (status != ITEM_OK) return status;
  i64(t, MTIME)[row] = item->mtime_ns;
  i64(t, CTIME)[row] = item->has & ITEM_CTIME ? item->ctime_ns : item->mtime_ns;
  int64_t atime = item->has & ITEM_ATIME ? item->atime_ns : item->mtime_ns;
  if (atime != item->mtime_ns && !t->any_atime) {
    /* Until now all were the same, and the column was not kept. */
    memcpy(t->column[ATIME], t->column[MTIME], t->rows * widths[ATIME]);
    t->any_atime = 1;
  }
  if (t->any_atime) i64(t, ATIME)[row] = atime;
  flags(t)[row] = (flags(t)[row] & HAS_XATTRS) | (item->has & ITEM_DAMAGED ? ROW_DAMAGED : 0);
  if (type == TYPE_REGULAR) status = add_content(t, row, item);
  else if (type == TYPE_LINK) {
    u32(t, FIRST)[row] = (uint32_t)t->blobs.length;
    u32(t, COUNT)[row] = (uint32_t)item->source.length;
    ((double *)t->column[SIZE])[row] = (double)item->source.length;
    if (!append(&t->blobs, item->source.data, item->source.length)) status = TREE_FULL;
  } else if (type != TYPE_DIRECTORY) u32(t, FIRST)[row] = item->rdev;
  return status == ITEM_OK ? add_xattrs(t, row, item) : status;
}

static int add_item(struct tree *t, const struct item *item) {
  uint32_t type = item->mode & TYPE_MASK, row, first = 0;
  if (item->has & ITEM_PART && !t->options.show_parts) return ITEM_OK;
  int is_link = item->has & ITEM_SOURCE && type != TYPE_LINK;
  if (is_link) {
    first = find_path(t, &item->source);
    if (first == 0 || is_directory(t, first)) return t->calls.left_out(t->calls.context, item->path, &item->source) < 0 ? TREE_CALL : ITEM_OK;
  }
  int status = row_for(t, &item->path, !is_link && type == TYPE_DIRECTORY, &row);
  if (status == UNSAFE) return t->calls.left_out(t->calls.context, item->path, NULL) < 0 ? TREE_CALL : ITEM_OK;
  if (status != ITEM_OK) return status;
  if (!is_link) return describe(t, row, item);
  u32(t, FIRST)[row] = first;
  flags(t)[row] = ROW_LINK;
  return ITEM_OK;
}

/* --- the whole --- */

struct tree *tree_new(const struct tree_options *options, const struct tree_calls *calls) {
  struct tree *t = calloc(1, sizeof *t);
  uint32_t root;
  if (!t) return NULL;
  t->options = *options;
  t->calls = *calls;
  t->accesses.key = options->key;
  t->room = 128;
  t->slot_count = 256;
  int complete = (t->slots = zeros(t->slot_count * sizeof *t->slots)) != NULL;
  for (int c = 0; c < ROW_COLUMNS; c++) complete &= (t->column[c] = resize(NULL, 0, (t->room + 1) * widths[c])) != NULL;
  if (!complete || !begin_accesses(&t->accesses) || new_row(t, 0, (const uint8_t *)"", 0, &root) != ITEM_OK) {
    tree_free(t);
    return NULL;
  }
  supply(t, root);
  return t;
}

void tree_free(struct tree *t) {
  for (int c = 0; c < ROW_COLUMNS; c++) if (t->column[c]) release(t->column[c], (t->room + 1) * widths[c]);
  struct accesses *a = &t->accesses;
  struct pool *pools[] = {&a->packed, &a->starts, &a->modes, &a->item, &t->linked, &t->names, &t->chunks, &t->blobs, &t->xattrs, &t->last_directory};
  for (size_t i = 0; i < sizeof pools / sizeof *pools; i++) drain(pools[i]);
  if (a->slots) release(a->slots, a->slot_count * sizeof *a->slots);
  if (t->slots) release(t->slots, t->slot_count * sizeof *t->slots);
  free(t);
}

int tree_add(struct tree *t, const uint8_t *bytes, size_t length, size_t *used) {
  struct msgpack cursor = {bytes, bytes + length};
  struct item item;
  int status = ITEM_OK;
  *used = 0;
  while (cursor.at < cursor.end && (status = item_read(&cursor, &item)) == ITEM_OK && (status = add_item(t, &item)) == ITEM_OK) *used = (size_t)(cursor.at - bytes);
  return status;
}

static int by_row(const void *a, const void *b) {
  const struct xattr_place *x = a, *y = b;
  if (x->row != y->row) return x->row < y->row ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

/* Ascending, for each row only what was said last, and nothing where that is nothing. */
static size_t settle_xattrs(struct tree *t) {
  struct xattr_place *places = (struct xattr_place *)t->xattrs.bytes;
  size_t count = t->xattrs.length / sizeof *places, kept = 0;
  if (count) qsort(places, count, sizeof *places, by_row);
  for (size_t i = 0; i < count; i++) {
    if ((i + 1 == count || places[i + 1].row != places[i].row) && places[i].end > places[i].start) places[kept++] = places[i];
  }
  t->xattrs.length = kept * sizeof *places;
  return kept;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* Which rows have several names that are shown, and how many. Returns their number, or SIZE_MAX without memory. */
static size_t count_links(struct tree *t) {
  struct pool targets = {NULL, 0, 0};
  for (size_t row = 1; row < t->rows; row++) {
    if ((flags(t)[row] & (ROW_LINK | ROW_REPLACED)) == ROW_LINK && !append(&targets, &u32(t, FIRST)[row], 4)) {
      drain(&targets);
      return SIZE_MAX;
    }
  }
  uint32_t *rows = (uint32_t *)targets.bytes;
  size_t length = targets.length / 4, kept = 0;
  if (length) qsort(rows, length, sizeof *rows, by_number);
  /* In place: what is kept is never more than what was read. */
  struct pool counts = {NULL, 0, 0};
  int complete = 1;
  for (size_t start = 0, end; start < length && complete; start = end) {
    uint32_t row = rows[start];
    for (end = start; end < length && rows[end] == row;) end++;
    uint32_t names = (uint32_t)(end - start) + !(flags(t)[row] & ROW_REPLACED);
    if (names < 2) continue;
    flags(t)[row] |= ROW_LINKED;
    rows[kept++] = row;
    complete = append(&counts, &names, 4);
  }
  t->linked.length = 0;
  complete = complete && append(&t->linked, rows, kept * 4) && append(&t->linked, counts.bytes, kept * 4);
  drain(&targets);
  drain(&counts);
  return complete ? kept : SIZE_MAX;
}

int tree_layout(struct tree *t, struct tree_layout *layout) {
  size_t with_xattrs = settle_xattrs(t), linked = count_links(t), at = 0;
  if (linked == SIZE_MAX) return TREE_MEMORY;
  for (int c = 0; c < ROW_COLUMNS; c++) layout->length[c] = (t->rows + (c == NAME_START)) * widths[c];
  if (access_count(&t->accesses) <= 0x10000) layout->length[ACCESS] = t->rows * 2;
  if (!t->any_atime) layout->length[ATIME] = 0;
  layout->length[NAMES] = t->names.length;
  layout->length[BLOBS] = t->blobs.length;
  layout->length[XATTRS] = with_xattrs * 12;
  layout->length[LINKED] = linked * 8;
  layout->length[OWNERS] = t->accesses.packed.length;
  layout->length[SLOTS] = t->slot_count * sizeof *t->slots;
  layout->length[KEY] = sizeof t->options.key;
  for (int c = 0; c < TREE_COLUMNS; c++) {
    layout->offset[c] = at;
    at += (layout->length[c] + 7) & ~(size_t)7;
  }
  layout->rows = t->rows;
  layout->chunks = t->chunks.length / CHUNK_ROW;
  layout->bytes = at;
  return ITEM_OK;
}

/* What was copied is given back at once, so that no column is ever there twice. */
static void move(uint8_t *to, void *from, size_t length, size_t room) {
  uint8_t *source = from;
  for (size_t at = 0; at < length; at += STEP) {
    size_t some = length - at < STEP ? length - at : STEP;
    memcpy(to + at, source + at, some);
    if (room >= MAPPED) madvise(source + at, some, MADV_DONTNEED);
  }
  release(from, room);
}

static void move_pool(uint8_t *to, struct pool *pool) {
  move(to, pool->bytes, pool->length, pool->room);
  memset(pool, 0, sizeof *pool);
}

void tree_write(struct tree *t, const struct tree_layout *layout, uint8_t *image, uint8_t *chunks) {
  for (size_t row = 0; row < t->rows; row++) flags(t)[row] &= ROW_STORED;
  for (int c = 0; c < ROW_COLUMNS; c++) {
    if (c == ACCESS && layout->length[c] == t->rows * 2) {
      uint16_t *narrow = (uint16_t *)(image + layout->offset[c]);
      for (size_t row = 0; row < t->rows; row++) narrow[row] = (uint16_t)u32(t, ACCESS)[row];
      release(t->column[c], (t->room + 1) * widths[c]);
    } else move(image + layout->offset[c], t->column[c], layout->length[c], (t->room + 1) * widths[c]);
    t->column[c] = NULL;
  }
  move_pool(chunks, &t->chunks);
  move_pool(image + layout->offset[NAMES], &t->names);
  move_pool(image + layout->offset[BLOBS], &t->blobs);
  const struct xattr_place *places = (const struct xattr_place *)t->xattrs.bytes;
  size_t count = t->xattrs.length / sizeof *places;
  uint32_t *out = (uint32_t *)(image + layout->offset[XATTRS]);
  for (size_t i = 0; i < count; i++) {
    out[i] = places[i].row;
    out[count + i] = places[i].start;
    out[2 * count + i] = places[i].end;
  }
  if (t->linked.length) memcpy(image + layout->offset[LINKED], t->linked.bytes, t->linked.length);
  memcpy(image + layout->offset[OWNERS], t->accesses.packed.bytes, t->accesses.packed.length);
  move(image + layout->offset[SLOTS], t->slots, layout->length[SLOTS], layout->length[SLOTS]);
  t->slots = NULL;
  memcpy(image + layout->offset[KEY], &t->options.key, sizeof t->options.key);
}
