#include "answers.h"
#include "fuse_reply.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum {
  LOOKUP = 1, FORGET = 2, GETATTR = 3, READLINK = 5, OPEN = 14, RELEASE = 18, GETXATTR = 22, LISTXATTR = 23, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29, READDIRPLUS = 44,
};
enum { DIRENT = 24, MAX_TARGET = 4096 };
enum { TYPE_MASK = 0170000, TYPE_DIRECTORY = 0040000, TYPE_REGULAR = 0100000, TYPE_LINK = 0120000 };
enum { ROW_REPLACED = 2, ROW_SUPPLIED = 4, ROW_LINK = 8, ROW_LINKED = 16 };
enum { FIRST_COOKIE = 2, FH_NAMES_ONLY = 1, SMALL = 64, MOUNT_ROOT = 1 };
enum { TRUNCATE = 01000 };
/* Of HandedFiles: the kernel has the content, and nobody wants to be told; the handle of all of them. */
enum { HANDED = 1, FH_HANDED = 0 };
#define NO_ROW SIZE_MAX
/* body_of has the bytes of the body, or the negative error number, or this. */
#define NOT_HERE LONG_MIN
/* More than any reply takes that is not bounded by what was asked. */
enum { LEAST_ROOM = 8192 };

/* 0 where there is no such value: a tree that is not sound shows nonsense, and reads no other memory. */
static uint32_t u32(const struct column *column, size_t index) { return index < column->count ? ((const uint32_t *)column->values)[index] : 0; }
static int64_t i64(const struct column *column, size_t index) { return index < column->count ? ((const int64_t *)column->values)[index] : 0; }
static double f64(const struct column *column, size_t index) { return index < column->count ? ((const double *)column->values)[index] : 0; }
static uint8_t u8(const struct column *column, size_t index) { return index < column->count ? ((const uint8_t *)column->values)[index] : 0; }

static size_t access_of(const struct shown_tree *t, size_t row) {
  if (!t->narrow_access) return u32(&t->access, row);
  return row < t->access.count ? ((const uint16_t *)t->access.values)[row] : 0;
}

static uint32_t mode_of(const struct shown_tree *t, size_t row) { return u32(&t->modes, access_of(t, row)); }
static int is_directory(const struct shown_tree *t, size_t row) { return (mode_of(t, row) & TYPE_MASK) == TYPE_DIRECTORY; }

static size_t name_of(const struct shown_tree *t, size_t row, const uint8_t **name) {
  size_t start = u32(&t->name_start, row), end = u32(&t->name_start, row + 1);
  *name = (const uint8_t *)"";
  if (end < start || end > t->names.count) return 0;
  *name = (const uint8_t *)t->names.values + start;
  return end - start;
}

/* Attributes of a further name are those of its target. */
static size_t target_of(const struct shown_tree *t, size_t row) {
  if (!(u8(&t->flags, row) & ROW_LINK)) return row;
  size_t target = u32(&t->first, row);
  return target < t->rows ? target : row;
}

/* The row or the next one that no later item of the same name took the place of; 0 at the end. */
static size_t shown(const struct shown_tree *t, size_t row) {
  for (size_t steps = 0; row != 0 && steps <= t->rows; steps++, row = u32(&t->next_sibling, row)) {
    if (row >= t->rows) return 0;
    if (!(u8(&t->flags, row) & ROW_REPLACED)) return row;
  }
  return 0;
}

static size_t find_child(const struct shown_tree *t, size_t parent, const uint8_t *name, size_t length) {
  size_t mask = t->slots.count - 1;
  size_t slot = hash_name(t->key, (uint32_t)parent, name, length) & mask;
  for (size_t steps = 0; steps < t->slots.count; steps++, slot = (slot + 1) & mask) {
    uint32_t found = u32(&t->slots, slot);
    const uint8_t *own;
    if (!found) break;
    size_t row = found - 1;
    if (row < t->rows && u32(&t->parent, row) == parent && name_of(t, row, &own) == length && memcmp(own, name, length) == 0) return target_of(t, row);
  }
  return NO_ROW;
}

/* Where the row stands among ascending ones; NO_ROW if it does not. */
static size_t index_of(const struct column *rows, size_t row) {
  size_t low = 0, high = rows->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (u32(rows, middle) < row) low = middle + 1;
    else high = middle;
  }
  return low < rows->count && u32(rows, low) == row ? low : NO_ROW;
}

/* Both halves as putAttr of answers.ts makes them of any number. */
static void put_number(uint8_t *at, double value) {
  if (!(value > -9e18 && value < 9e18)) value = 0;
  put32(at, (uint32_t)(int64_t)value);
  put32(at + 4, (uint32_t)(int64_t)(value / 4294967296.0));
}

static double blocks_of(double size) {
  double blocks = size / 512;
  if (!(blocks > -9e18 && blocks < 9e18)) return 0;
  int64_t whole = (int64_t)blocks;
  return (double)whole < blocks ? (double)(whole + 1) : (double)whole;
}

/* struct fuse_attr. */
static void put_attr(const struct shown_tree *t, size_t row, uint8_t *at) {
  uint8_t flags = u8(&t->flags, row);
  size_t access = access_of(t, row);
  uint32_t mode = u32(&t->modes, access), type = mode & TYPE_MASK;
  double size = f64(&t->size, row);
  int64_t mtime, atime, ctime;
  if (flags & ROW_SUPPLIED) mtime = atime = ctime = row == 0 ? t->root_ns : t->supplied_ns;
  else {
    mtime = i64(&t->mtime, row);
    atime = t->atime.count ? i64(&t->atime, row) : mtime;
    ctime = i64(&t->ctime, row);
  }
  put64(at, t->base + row);
  put_number(at + 8, size);
  put_number(at + 16, blocks_of(size));
  put_time(at, 24, 48, atime);
  put_time(at, 32, 52, mtime);
  put_time(at, 40, 56, ctime);
  put32(at + 60, mode);
  put32(at + 64, flags & ROW_LINKED ? u32(&t->linked_count, index_of(&t->linked_row, row)) : 1);
  put32(at + 68, u32(&t->uids, access));
  put32(at + 72, u32(&t->gids, access));
  put32(at + 76, type == TYPE_REGULAR || type == TYPE_DIRECTORY || type == TYPE_LINK ? 0 : u32(&t->first, row));
  put32(at + 80, 512);
  put32(at + 84, 0);
}

/* struct fuse_entry_out. */
static void put_entry(const struct shown_tree *t, size_t row, uint8_t *at) {
  uint64_t node = t->base + row;
  put_entry_head(at, node, node == MOUNT_ROOT ? 0 : t->generation, t->ttl_seconds);
  put_attr(t, row, at + ATTR_AT);
}

/* No such name, and the kernel may know so. */
static void put_no_entry(const struct shown_tree *t, uint8_t *at) {
  memset(at, 0, ENTRY);
  put64(at + 8, t->generation);
  put64(at + 16, t->ttl_seconds);
}

static size_t record_size(size_t name_length) { return (DIRENT + name_length + 7) & ~(size_t)7; }

struct listing {
  uint8_t *at, *end;
  int plus, names_only;
  size_t names; /* without attributes */
};

/* A record, with room for its entry before it; NULL if the reply is full. */
static uint8_t *add_record(struct listing *list, uint64_t ino, uint64_t next, uint32_t mode, const uint8_t *name, size_t length) {
  size_t bytes = record_size(length) + (list->plus ? ENTRY : 0);
  if ((size_t)(list->end - list->at) < bytes) return NULL;
  uint8_t *start = list->at, *record = start + (list->plus ? ENTRY : 0);
  put64(record, ino);
  put64(record + 8, next);
  put32(record + 16, (uint32_t)length);
  put32(record + 20, mode >> 12 & 15);
  /* The padding too: what lay here before is none of the reader's business. */
  memset(record + record_size(length) - 8, 0, 8);
  memcpy(record + DIRENT, name, length);
  list->at += bytes;
  return start;
}

/* `.` and `..` give no reference, and only their number and type matter. */
static int add_dots(struct listing *list, uint64_t ino, uint64_t next, uint32_t mode, const char *name) {
  uint8_t *entry = add_record(list, ino, next, mode, (const uint8_t *)name, strlen(name));
  if (entry && list->plus) memset(entry, 0, ENTRY);
  return entry != NULL;
}

static void list_directory(const struct shown_tree *t, size_t directory, uint64_t cookie, struct listing *list) {
  if (cookie < 1 && !add_dots(list, t->base + directory, 1, mode_of(t, directory), ".")) return;
  if (cookie < 2) {
    size_t above = u32(&t->parent, directory);
    uint64_t ino = directory == 0 ? t->above : t->base + above;
    if (!add_dots(list, ino, FIRST_COOKIE, TYPE_DIRECTORY, "..")) return;
  }
  size_t row;
  if (cookie <= FIRST_COOKIE) row = shown(t, u32(&t->first, directory));
  else {
    uint64_t given = cookie - FIRST_COOKIE;
    if (given >= t->rows || u32(&t->parent, given) != directory) return;
    row = shown(t, u32(&t->next_sibling, given));
  }
  for (; row != 0; row = shown(t, u32(&t->next_sibling, row))) {
    const uint8_t *name;
    size_t length = name_of(t, row, &name), target = target_of(t, row);
    uint8_t *entry = add_record(list, t->base + target, row + FIRST_COOKIE, mode_of(t, target), name, length);
    if (!entry) break;
    if (!list->plus) continue;
    if (!list->names_only || is_directory(t, target)) {
      put_entry(t, target, entry);
      ++*t->references;
    } else {
      memset(entry, 0, ENTRY);
      list->names++;
    }
  }
}

static int is(const uint8_t *name, size_t length, const char *other) { return length == strlen(other) && memcmp(name, other, length) == 0; }
static int is_acl(const uint8_t *name, size_t length) { return is(name, length, "system.posix_acl_access") || is(name, length, "system.posix_acl_default"); }
static int is_label(const uint8_t *name, size_t length) { return is(name, length, "security.selinux"); }

enum { XATTR_NAME_AT = 48 };

/* An attribute that is not there. What is there, or what the archive's own directory pretends to have, is for others. */
static long get_xattr(const struct shown_tree *t, size_t row, const uint8_t *request, size_t length, unsigned manner) {
  const uint8_t *name = request + XATTR_NAME_AT;
  static const char own[] = "user.borgfs.";
  if (length <= XATTR_NAME_AT) return NOT_HERE;
  size_t name_length = strnlen((const char *)name, length - XATTR_NAME_AT);
  if (name_length >= strlen(own) && memcmp(name, own, strlen(own)) == 0) return NOT_HERE;
  /* The owner's rights do not depend on an ACL, so it is not the kernel that wants to know. */
  int tell = manner & ANSWER_NO_MARKS && t->bare && (is_label(name, name_length) || (is_acl(name, name_length) && get32(request + 24) == u32(&t->uids, access_of(t, row))));
  return tell ? -EOPNOTSUPP : -ENODATA;
}

int asks_for_marks(const uint8_t *request, size_t length) {
  if (length <= XATTR_NAME_AT || get32(request + 4) != GETXATTR) return 0;
  const uint8_t *name = request + XATTR_NAME_AT;
  size_t name_length = strnlen((const char *)name, length - XATTR_NAME_AT);
  return is_acl(name, name_length) || is_label(name, name_length);
}

static long list_into(const struct shown_tree *t, size_t directory, int plus, const uint8_t *request, uint8_t *body, size_t room, unsigned manner, size_t *names) {
  uint64_t fh = get64(request + REQUEST), cookie = get64(request + REQUEST + 8);
  size_t wanted = get32(request + REQUEST + 16);
  struct listing list = {body, body + (room < wanted ? room : wanted), plus, fh == FH_NAMES_ONLY && manner & ANSWER_NAMES_ONLY, 0};
  list_directory(t, directory, cookie, &list);
  *names = list.names;
  return list.at - body;
}

static long body_of(const struct shown_tree *t, size_t row, uint32_t code, const uint8_t *request, size_t length, uint8_t *body, size_t room, unsigned manner, size_t *names) {
  switch (code) {
    case LOOKUP: {
      const uint8_t *name = request + REQUEST;
      size_t name_length = strnlen((const char *)name, length - REQUEST);
      /* What handles of an NFS server are asked by is rare, and for others too. */
      if (name_length > MAX_NAME || is(name, name_length, ".") || is(name, name_length, "..")) return NOT_HERE;
      size_t found = find_child(t, row, name, name_length);
      if (found == NO_ROW) put_no_entry(t, body);
      else {
        put_entry(t, found, body);
        ++*t->references;
      }
      *names = found != NO_ROW && !is_directory(t, found);
      return ENTRY;
    }
    case GETATTR:
      put64(body, t->ttl_seconds);
      put64(body + 8, 0);
      put_attr(t, row, body + 16);
      return 16 + ATTR;
    case READLINK: {
      size_t start = u32(&t->first, row), bytes = u32(&t->count, row);
      if ((mode_of(t, row) & TYPE_MASK) != TYPE_LINK || bytes > MAX_TARGET || start > t->blobs.count || bytes > t->blobs.count - start) return NOT_HERE;
      memcpy(body, (const uint8_t *)t->blobs.values + start, bytes);
      return (long)bytes;
    }
    case GETXATTR:
    case LISTXATTR:
      if (row == 0 && code == GETXATTR) return NOT_HERE;
      if (index_of(&t->xattr_row, row) != NO_ROW || length < REQUEST + 4) return NOT_HERE;
      if (code == GETXATTR) return get_xattr(t, row, request, length, manner);
      if (get32(request + REQUEST) != 0) return 0;
      put64(body, 0);
      return 8;
    case OPEN:
      if (length < REQUEST + 8 || t->handed[row] != HANDED || get32(request + REQUEST) & (ACCESS_MODE | TRUNCATE)) return NOT_HERE;
      ++*t->handed_opens;
      put64(body, FH_HANDED);
      put32(body + 8, KEEP_CACHE | NO_FLUSH);
      put32(body + 12, 0);
      return 16;
    case RELEASE:
      if (length < REQUEST + 8 || get64(request + REQUEST) != FH_HANDED || *t->handed_opens < 1) return NOT_HERE;
      --*t->handed_opens;
      return 0;
    case OPENDIR:
      /* The kernel keeps no listing that would have others ask for each name. */
      put64(body, manner & ANSWER_NAMES_ONLY ? FH_NAMES_ONLY : 0);
      put32(body + 8, KEEP_CACHE | (manner & ANSWER_NAMES_ONLY ? 0 : CACHE_DIR));
      put32(body + 12, 0);
      return 16;
    case READDIR:
    case READDIRPLUS:
      if (!is_directory(t, row) || length < REQUEST + 20) return NOT_HERE;
      return list_into(t, row, code == READDIRPLUS, request, body, room, manner, names);
    case RELEASEDIR: return 0;
    default: return NOT_HERE;
  }
}

int tree_is_small(const struct shown_tree *t, uint64_t node) {
  size_t row = node < t->base || node - t->base >= t->rows || !is_directory(t, node - t->base) ? 0 : shown(t, u32(&t->first, node - t->base));
  for (int entries = 0; row != 0; row = shown(t, u32(&t->next_sibling, row))) if (++entries > SMALL) return 0;
  return 1;
}

long tree_answer(const struct shown_tree *t, const uint8_t *request, size_t length, uint8_t *reply, size_t room, unsigned manner, size_t *names) {
  if (length < REQUEST || room < LEAST_ROOM) return ANSWER_OTHER;
  uint32_t code = get32(request + 4);
  uint64_t unique = get64(request + 8), node = get64(request + 16);
  if (node < t->base || node - t->base >= t->rows) return ANSWER_OTHER;
  if (code == FORGET) {
    if (length >= REQUEST + 8) *t->references -= (double)get64(request + REQUEST);
    return ANSWER_NONE;
  }
  *names = 0;
  long bytes = body_of(t, (size_t)(node - t->base), code, request, length, reply + REPLY, room - REPLY, manner, names);
  if (bytes == NOT_HERE) return ANSWER_OTHER;
  return put_reply(reply, unique, bytes);
}
