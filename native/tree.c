#include "tree.h"

#include <stdlib.h>
#include <string.h>

enum { TYPE_MASK = 0170000, TYPE_DIRECTORY = 0040000, TYPE_REGULAR = 0100000, TYPE_LINK = 0120000 };
/* Flags of a row that are stored; HAS_XATTRS is only for building. */
enum { ROW_DAMAGED = 1, ROW_REPLACED = 2, ROW_SUPPLIED = 4, ROW_STORED = 7, HAS_XATTRS = 128 };
enum { CHUNK_ROW = 40, PLAIN_ACL = 4 + 3 * 8, KNOWN_OWNERS = 32 };
static const size_t LIMIT = UINT32_MAX;

enum {
  PARENT, NAME_START, FIRST_CHILD, NEXT_SIBLING, TARGET, MODE, UID, GID, NLINK, RDEV, FLAGS, SIZE, MTIME, ATIME, CTIME, CONTENT_START, CONTENT_COUNT,
  ROW_COLUMNS, LAST_CHILD = ROW_COLUMNS, BUILDING_COLUMNS
};
static const uint8_t widths[BUILDING_COLUMNS] = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1, 8, 8, 8, 8, 4, 4, 4};
/* Behind the row columns in the image. XATTRS: the rows that have some, then their starts, then their ends in BLOBS. */
enum { NAMES = ROW_COLUMNS, CHUNKS, BLOBS, XATTRS, SLOTS };

struct pool {
  uint8_t *bytes;
  size_t length, room;
};

struct xattr_place {
  uint32_t row, start, end, order;
};

/* An owner's name met before. */
struct owner {
  uint8_t *name;
  size_t length;
  int known;
  uint32_t number;
};

struct tree {
  struct tree_options options;
  struct tree_calls calls;
  void *column[BUILDING_COLUMNS];
  size_t rows, room;
  struct pool names, chunks, blobs, xattrs; /* xattrs: of struct xattr_place */
  uint32_t *slots;
  size_t slot_count;
  int any_atime;
  struct pool last_directory;
  uint32_t last_directory_row;
  struct owner owners[2][KNOWN_OWNERS];
  unsigned owner_count[2], owner_last[2], owner_next[2];
};

static uint32_t *u32(struct tree *t, int column) { return t->column[column]; }
static uint8_t *flags(struct tree *t) { return t->column[FLAGS]; }
static int64_t *i64(struct tree *t, int column) { return t->column[column]; }

/* Room for `more` bytes; 0 without memory or past what 32 bits can tell. */
static int reserve(struct pool *pool, size_t more) {
  if (more <= pool->room - pool->length) return 1;
  if (more > LIMIT - pool->length) return 0;
  size_t room = pool->room * 2 > LIMIT ? LIMIT : pool->room * 2;
  if (room < pool->length + more) room = pool->length + more;
  uint8_t *grown = realloc(pool->bytes, room);
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

static uint32_t hash_name(uint32_t parent, const uint8_t *name, size_t length) {
  uint32_t hash = (parent ^ 0x811c9dc5u) * 0x9e3779b1u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ name[i]) * 0x01000193u;
  hash ^= hash >> 15;
  hash *= 0x85ebca6bu;
  return hash ^ hash >> 13;
}

/* The slot that holds (parent, name), or the empty one where it belongs. */
static size_t find_slot(struct tree *t, uint32_t parent, const uint8_t *name, size_t length) {
  const uint32_t *starts = u32(t, NAME_START), *parents = u32(t, PARENT);
  size_t mask = t->slot_count - 1;
  for (size_t slot = hash_name(parent, name, length) & mask;; slot = (slot + 1) & mask) {
    uint32_t found = t->slots[slot];
    if (!found) return slot;
    uint32_t row = found - 1;
    if (parents[row] == parent && starts[row + 1] - starts[row] == length && memcmp(t->names.bytes + starts[row], name, length) == 0) return slot;
  }
}

static int grow_rows(struct tree *t) {
  size_t room = t->room * 2;
  for (int c = 0; c < BUILDING_COLUMNS; c++) {
    /* One more value for the end of the last name. */
    uint8_t *grown = realloc(t->column[c], (room + 1) * widths[c]);
    if (!grown) return 0;
    memset(grown + (t->room + 1) * widths[c], 0, (room - t->room) * widths[c]);
    t->column[c] = grown;
  }
  t->room = room;
  return 1;
}

static int grow_slots(struct tree *t) {
  size_t count = t->slot_count * 2, mask = count - 1;
  uint32_t *slots = calloc(count, sizeof *slots);
  if (!slots) return 0;
  const uint32_t *starts = u32(t, NAME_START);
  for (size_t old = 0; old < t->slot_count; old++) {
    uint32_t found = t->slots[old];
    if (!found) continue;
    uint32_t row = found - 1;
    size_t slot = hash_name(u32(t, PARENT)[row], t->names.bytes + starts[row], starts[row + 1] - starts[row]) & mask;
    while (slots[slot]) slot = (slot + 1) & mask;
    slots[slot] = found;
  }
  free(t->slots);
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
  u32(t, NAME_START)[row + 1] = (uint32_t)t->names.length;
  u32(t, PARENT)[row] = parent;
  u32(t, TARGET)[row] = row;
  u32(t, NLINK)[row] = 1;
  *made = row;
  if (row == 0) return ITEM_OK;
  uint32_t last = u32(t, LAST_CHILD)[parent];
  if (last) u32(t, NEXT_SIBLING)[last] = row;
  else u32(t, FIRST_CHILD)[parent] = row;
  u32(t, LAST_CHILD)[parent] = row;
  t->slots[slot] = row + 1;
  return ITEM_OK;
}

/* Another item takes the row's name. */
static void retire(struct tree *t, uint32_t row) {
  flags(t)[row] |= ROW_REPLACED;
  t->last_directory.length = 0;
  uint32_t *links = &u32(t, NLINK)[u32(t, TARGET)[row]];
  if (*links > 1) --*links;
}

/* A directory that no item describes. */
static void supply(struct tree *t, uint32_t row) {
  const struct tree_options *o = &t->options;
  u32(t, MODE)[row] = TYPE_DIRECTORY | (0755 & ~o->umask);
  u32(t, UID)[row] = o->forced_uid >= 0 ? (uint32_t)o->forced_uid : o->uid;
  u32(t, GID)[row] = o->forced_gid >= 0 ? (uint32_t)o->forced_gid : o->gid;
  i64(t, MTIME)[row] = i64(t, ATIME)[row] = i64(t, CTIME)[row] = row == 0 ? o->root_time_ns : o->time_ns;
  flags(t)[row] = ROW_SUPPLIED;
}

static int is_directory(struct tree *t, uint32_t row) { return (u32(t, MODE)[row] & TYPE_MASK) == TYPE_DIRECTORY; }
static int is_dot(const uint8_t *name, size_t length) { return length == 1 && name[0] == '.'; }
static int is_unsafe(const uint8_t *name, size_t length) { return (length == 2 && name[0] == '.' && name[1] == '.') || memchr(name, 0, length); }

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
      row = u32(t, TARGET)[found - 1];
    }
    start = end + 1;
  }
  return row;
}

/* --- attributes --- */

static int owner_of(struct tree *t, int is_group, const struct span *name, uint32_t stored, uint32_t *number) {
  struct owner *known = t->owners[is_group];
  unsigned count = t->owner_count[is_group], last = t->owner_last[is_group], i = last;
  for (unsigned tried = 0; tried < count; tried++, i = (i + 1) % count) {
    if (known[i].length != name->length || memcmp(known[i].name, name->data, name->length) != 0) continue;
    t->owner_last[is_group] = i;
    *number = known[i].known ? known[i].number : stored;
    return ITEM_OK;
  }
  struct owner fresh = {malloc(name->length + 1), name->length, 0, 0};
  if (!fresh.name) return TREE_MEMORY;
  memcpy(fresh.name, name->data, name->length);
  fresh.known = t->calls.owner(t->calls.context, is_group, *name, &fresh.number);
  if (fresh.known < 0) {
    free(fresh.name);
    return TREE_CALL;
  }
  if (count < KNOWN_OWNERS) i = t->owner_count[is_group]++;
  else {
    i = t->owner_next[is_group]++ % KNOWN_OWNERS;
    free(known[i].name);
  }
  known[i] = fresh;
  t->owner_last[is_group] = i;
  *number = fresh.known ? fresh.number : stored;
  return ITEM_OK;
}

static int add_xattr(struct tree *t, struct span name, struct span value) {
  if (name.length > 0xffff) return ITEM_OK;
  uint8_t lengths[6] = {(uint8_t)name.length, (uint8_t)(name.length >> 8), (uint8_t)value.length, (uint8_t)(value.length >> 8),
                        (uint8_t)(value.length >> 16), (uint8_t)(value.length >> 24)};
  return append(&t->blobs, lengths, 2) && append(&t->blobs, name.data, name.length) && append(&t->blobs, lengths + 2, 4) &&
                 append(&t->blobs, value.data, value.length)
             ? ITEM_OK
             : TREE_FULL;
}

static int add_xattrs(struct tree *t, uint32_t row, const struct item *item) {
  static const struct span access_name = {(const uint8_t *)"system.posix_acl_access", 23}, default_name = {(const uint8_t *)"system.posix_acl_default", 24};
  size_t start = t->blobs.length;
  struct msgpack packed = item->xattrs;
  int status = ITEM_OK;
  for (size_t i = 0; i < item->xattr_count && status == ITEM_OK; i++) {
    struct span name, value;
    item_xattr(&packed, &name, &value);
    status = add_xattr(t, name, value);
  }
  for (int which = 0; which < 2 && status == ITEM_OK; which++) {
    if (!(item->has & (which ? ITEM_ACL_DEFAULT : ITEM_ACL_ACCESS))) continue;
    struct span binary;
    int known = t->calls.acl(t->calls.context, which ? item->acl_default : item->acl_access, &binary);
    if (known < 0) return TREE_CALL;
    /* Borg stores the three plain entries beside a default ACL; file systems keep those in the mode alone. */
    if (known && (which || binary.length > PLAIN_ACL)) status = add_xattr(t, which ? default_name : access_name, binary);
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
    uint8_t *grown = realloc(t->chunks.bytes, room);
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
  u32(t, CONTENT_START)[row] = (uint32_t)first;
  u32(t, CONTENT_COUNT)[row] = (uint32_t)item->chunk_count;
  ((double *)t->column[SIZE])[row] = item->has & ITEM_SIZE ? item->size : size;
  return ITEM_OK;
}

static int describe(struct tree *t, uint32_t row, const struct item *item) {
  const struct tree_options *o = &t->options;
  uint32_t type = item->mode & TYPE_MASK;
  int status = ITEM_OK;
  u32(t, MODE)[row] = type == TYPE_DIRECTORY || type == TYPE_REGULAR ? item->mode & ~o->umask : item->mode;
  u32(t, UID)[row] = o->forced_uid >= 0 ? (uint32_t)o->forced_uid : item->uid;
  u32(t, GID)[row] = o->forced_gid >= 0 ? (uint32_t)o->forced_gid : item->gid;
  if (o->forced_uid < 0 && !o->numeric_ids && item->has & ITEM_USER) status = owner_of(t, 0, &item->user, item->uid, &u32(t, UID)[row]);
  if (status == ITEM_OK && o->forced_gid < 0 && !o->numeric_ids && item->has & ITEM_GROUP) status = owner_of(t, 1, &item->group, item->gid, &u32(t, GID)[row]);
  if (status != ITEM_OK) return status;
  u32(t, RDEV)[row] = item->rdev;
  i64(t, MTIME)[row] = item->mtime_ns;
  i64(t, CTIME)[row] = item->has & ITEM_CTIME ? item->ctime_ns : item->mtime_ns;
  i64(t, ATIME)[row] = item->has & ITEM_ATIME ? item->atime_ns : item->mtime_ns;
  if (i64(t, ATIME)[row] != item->mtime_ns) t->any_atime = 1;
  flags(t)[row] = (flags(t)[row] & HAS_XATTRS) | (item->has & ITEM_DAMAGED ? ROW_DAMAGED : 0);
  if (type == TYPE_REGULAR) status = add_content(t, row, item);
  else if (type == TYPE_LINK) {
    u32(t, CONTENT_START)[row] = (uint32_t)t->blobs.length;
    u32(t, CONTENT_COUNT)[row] = (uint32_t)item->source.length;
    ((double *)t->column[SIZE])[row] = (double)item->source.length;
    if (!append(&t->blobs, item->source.data, item->source.length)) status = TREE_FULL;
  }
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
  u32(t, TARGET)[row] = first;
  u32(t, NLINK)[first]++;
  return ITEM_OK;
}

/* --- the whole --- */

struct tree *tree_new(const struct tree_options *options, const struct tree_calls *calls) {
  struct tree *t = calloc(1, sizeof *t);
  uint32_t root;
  if (!t) return NULL;
  t->options = *options;
  t->calls = *calls;
  t->room = 128;
  t->slot_count = 256;
  int complete = (t->slots = calloc(t->slot_count, sizeof *t->slots)) != NULL;
  for (int c = 0; c < BUILDING_COLUMNS; c++) complete &= (t->column[c] = calloc(t->room + 1, widths[c])) != NULL;
  if (!complete || new_row(t, 0, (const uint8_t *)"", 0, &root) != ITEM_OK) {
    tree_free(t);
    return NULL;
  }
  supply(t, root);
  return t;
}

void tree_free(struct tree *t) {
  for (int c = 0; c < BUILDING_COLUMNS; c++) free(t->column[c]);
  for (int kind = 0; kind < 2; kind++) for (unsigned i = 0; i < t->owner_count[kind]; i++) free(t->owners[kind][i].name);
  free(t->names.bytes);
  free(t->chunks.bytes);
  free(t->blobs.bytes);
  free(t->xattrs.bytes);
  free(t->last_directory.bytes);
  free(t->slots);
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

void tree_layout(struct tree *t, struct tree_layout *layout) {
  size_t with_xattrs = settle_xattrs(t), at = 0;
  for (int c = 0; c < ROW_COLUMNS; c++) layout->length[c] = (t->rows + (c == NAME_START)) * widths[c];
  if (!t->any_atime) layout->length[ATIME] = 0;
  layout->length[NAMES] = t->names.length;
  layout->length[CHUNKS] = t->chunks.length;
  layout->length[BLOBS] = t->blobs.length;
  layout->length[XATTRS] = with_xattrs * 12;
  layout->length[SLOTS] = t->slot_count * sizeof *t->slots;
  for (int c = 0; c < TREE_COLUMNS; c++) {
    layout->offset[c] = at;
    at += (layout->length[c] + 7) & ~(size_t)7;
  }
  layout->rows = t->rows;
  layout->chunks = t->chunks.length / CHUNK_ROW;
  layout->bytes = at;
}

static void move(uint8_t *to, void *from, size_t length) {
  if (length) memcpy(to, from, length);
  free(from);
}

void tree_write(struct tree *t, const struct tree_layout *layout, uint8_t *image) {
  for (size_t row = 0; row < t->rows; row++) flags(t)[row] &= ROW_STORED;
  for (int c = 0; c < ROW_COLUMNS; c++) {
    move(image + layout->offset[c], t->column[c], layout->length[c]);
    t->column[c] = NULL;
  }
  struct pool *pools[] = {&t->names, &t->chunks, &t->blobs};
  for (int p = 0; p < 3; p++) {
    move(image + layout->offset[NAMES + p], pools[p]->bytes, layout->length[NAMES + p]);
    pools[p]->bytes = NULL;
  }
  const struct xattr_place *places = (const struct xattr_place *)t->xattrs.bytes;
  size_t count = t->xattrs.length / sizeof *places;
  uint32_t *out = (uint32_t *)(image + layout->offset[XATTRS]);
  for (size_t i = 0; i < count; i++) {
    out[i] = places[i].row;
    out[count + i] = places[i].start;
    out[2 * count + i] = places[i].end;
  }
  move(image + layout->offset[SLOTS], t->slots, layout->length[SLOTS]);
  t->slots = NULL;
}
