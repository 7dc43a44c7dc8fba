#include "arrivals.h"
#include "answers.h"
#include "fuse_reply.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { LOOKUP = 1, GETATTR = 3, SETATTR = 4, WRITE = 16, RELEASE = 18, SETXATTR = 21, CREATE = 35 };
enum { BLOCK = 4096 };
enum { TYPE_REGULAR = 0100000, PERMISSIONS = 07777, SET_ID = 06000 };
enum { WRITE_ONLY = 1, READ_ONLY = 0 };
enum { CREATE_FLAGS = 40, CREATE_MODE = 44, CREATE_UMASK = 48, CREATE_NAME = 56 };
enum { WRITE_FH = 40, WRITE_OFFSET = 48, WRITE_SIZE = 56, WRITE_FLAGS = 60, WRITE_DATA = 80, WRITE_LOCK_OWNER = 2, WRITE_KILL = 4 };
enum { SET_VALID = 40, SET_ATIME = 72, SET_MTIME = 80, SET_ATIME_NS = 96, SET_MTIME_NS = 100, SET_MODE = 108, SET_UID = 116, SET_GID = 120, SET_END = 128 };
enum { BY_MODE = 1, BY_UID = 2, BY_GID = 4, BY_ATIME = 16, BY_MTIME = 32, BY_FH = 64, BY_ATIME_NOW = 128, BY_MTIME_NOW = 256, BY_LOCK_OWNER = 512, BY_CTIME = 1024, BY_KILL = 2048 };
enum { SETTABLE = BY_MODE | BY_UID | BY_GID | BY_ATIME | BY_MTIME | BY_FH | BY_ATIME_NOW | BY_MTIME_NOW | BY_LOCK_OWNER | BY_CTIME | BY_KILL };
enum { XATTR_SIZE = 40, XATTR_FLAGS = 44, XATTR_NAME = 48, XATTR_LONG_NAME = 56, XATTR_REPLACE = 2, ACL_BYTES = 28 };

/* As clock.ts: never twice the same. */
static int64_t now_ns(struct arrivals *a) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t ns = a->clock_ns + ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - a->clock_base_ns);
  return a->last_ns = ns > a->last_ns ? ns : a->last_ns + 1;
}

/* --- names --- */

static uint64_t hash_of(const struct arrivals *a, const uint8_t *name, size_t length) {
  uint64_t hash = (uint64_t)hash_name(a->keys[0], 0, name, length) << 32 | hash_name(a->keys[1], 0, name, length);
  return hash ? hash : 1;
}

/* Its place, or the one where it would be. */
static uint64_t *place_of(const struct arrivals *a, uint64_t hash) {
  size_t mask = a->known_room - 1, at = (size_t)hash & mask;
  while (a->known[at] && a->known[at] != hash) at = (at + 1) & mask;
  return &a->known[at];
}

static int enter(struct arrivals *a, uint64_t hash) {
  uint64_t *place = place_of(a, hash);
  if (*place) return 1;
  if (2 * (a->known_count + 1) > a->known_room) return 0;
  *place = hash;
  a->known_count++;
  return 1;
}

int arrivals_know(struct arrivals *a, const uint8_t *name, size_t length) { return enter(a, hash_of(a, name, length)); }

/* A name at the end of a request; 0 if it is for others. */
static size_t name_at(const uint8_t *slot, size_t length, size_t at) {
  if (length <= at) return 0;
  size_t name_length = strnlen((const char *)slot + at, length - at);
  const uint8_t *name = slot + at;
  if (name_length > MAX_NAME || (name_length == 1 && name[0] == '.') || (name_length == 2 && name[0] == '.' && name[1] == '.')) return 0;
  return name_length;
}

/* --- replies --- */

static void put_attr(uint8_t *at, uint64_t node, uint64_t size, int64_t atime, int64_t mtime, int64_t ctime, uint32_t mode, uint32_t nlink, uint32_t uid, uint32_t gid, uint64_t blocks) {
  put64(at, node);
  put64(at + 8, size);
  put64(at + 16, blocks);
  put_time(at, 24, 48, atime);
  put_time(at, 32, 52, mtime);
  put_time(at, 40, 56, ctime);
  put32(at + 60, mode);
  put32(at + 64, nlink);
  put32(at + 68, uid);
  put32(at + 72, gid);
  put32(at + 76, 0);
  put32(at + 80, BLOCK);
  put32(at + 84, 0);
}

static void put_file(const struct arrivals *a, size_t index, uint8_t *at) {
  const struct arrival *file = &a->files[index];
  put_attr(at, a->first_node + index, file->size, file->atime_ns, file->mtime_ns, file->ctime_ns, file->mode, 1, file->uid, file->gid, (file->size + 511) / 512);
}

static void put_ttl(const struct arrivals *a, uint8_t *body) {
  put64(body, a->ttl_seconds);
  put64(body + 8, 0);
}

static long put_attr_reply(struct arrivals *a, uint8_t *slot, uint64_t unique, size_t index) {
  put_ttl(a, slot + REPLY);
  put_file(a, index, slot + REPLY + 16);
  return put_reply(slot, unique, 16 + ATTR);
}

/* --- requests --- */

static long create(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique) {
  size_t name_length = name_at(slot, length, CREATE_NAME);
  uint32_t flags = get32(slot + CREATE_FLAGS), mode = get32(slot + CREATE_MODE), umask = get32(slot + CREATE_UMASK);
  if (!name_length || (flags & ACCESS_MODE) == READ_ONLY || a->count == a->room || a->names_room - a->names_length < name_length) return ANSWER_OTHER;
  uint64_t hash = hash_of(a, slot + CREATE_NAME, name_length);
  if (*place_of(a, hash) || !enter(a, hash)) return ANSWER_OTHER;
  size_t index = a->count++;
  a->just_made = a->count;
  int64_t now = now_ns(a);
  a->files[index] = (struct arrival){
    .name_start = (uint32_t)a->names_length, .name_length = (uint32_t)name_length, .mode = ((mode & PERMISSIONS) & ~umask) | TYPE_REGULAR,
    .uid = get32(slot + 24), .gid = get32(slot + 28), .is_open = 1, .atime_ns = now, .mtime_ns = now, .ctime_ns = now, .open_flags = flags,
  };
  memcpy(a->names + a->names_length, slot + CREATE_NAME, name_length);
  a->names_length += name_length;
  a->directory_mtime_ns = a->directory_ctime_ns = now;
  uint8_t *entry = slot + REPLY, *opened = entry + ENTRY;
  put_entry_head(entry, a->first_node + index, a->generation, a->ttl_seconds);
  put_file(a, index, entry + ATTR_AT);
  put64(opened, a->first_handle + index);
  put32(opened + 8, KEEP_CACHE | NO_FLUSH | ((flags & ACCESS_MODE) == WRITE_ONLY ? DIRECT_IO : 0));
  put32(opened + 12, 0);
  return put_reply(slot, unique, ENTRY + 16);
}

/* From front to back, and nothing was written to another file since. */
static long write_to(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique, size_t index) {
  struct arrival *file = &a->files[index];
  uint32_t size = get32(slot + WRITE_SIZE), flags = get32(slot + WRITE_FLAGS);
  if (flags & ~(uint32_t)(WRITE_LOCK_OWNER | WRITE_KILL) || (flags & WRITE_KILL && file->mode & SET_ID)) return ANSWER_OTHER;
  if (!file->is_open || get64(slot + WRITE_FH) != a->first_handle + index || size == 0 || length < WRITE_DATA || size > length - WRITE_DATA) return ANSWER_OTHER;
  if (get64(slot + WRITE_OFFSET) != file->size || size > MAX_ARRIVAL_BYTES - file->size) return ANSWER_OTHER;
  size_t start = file->size ? file->data_start : (a->data_length + ARRIVAL_ALIGNMENT - 1) / ARRIVAL_ALIGNMENT * ARRIVAL_ALIGNMENT;
  if (file->size && start + file->size != a->data_length) return ANSWER_OTHER;
  if (a->data_room < start || a->data_room - start < file->size + size) return ANSWER_OTHER;
  if (!file->size) memset(a->data + a->data_length, 0, start - a->data_length);
  memcpy(a->data + start + file->size, slot + WRITE_DATA, size);
  file->data_start = (uint32_t)start;
  file->size += size;
  file->mtime_ns = file->ctime_ns = now_ns(a);
  a->data_length = start + file->size;
  put64(slot + REPLY, size);
  return put_reply(slot, unique, 8);
}

/* As operations.ts reads it: the nearest that 64 bits of nanoseconds tell. */
static int64_t time_at(const uint8_t *slot, size_t seconds, size_t nanoseconds) {
  __int128 ns = (__int128)(int64_t)get64(slot + seconds) * 1000000000 + get32(slot + nanoseconds);
  if (ns > INT64_MAX) return INT64_MAX;
  return ns < -INT64_MAX ? -INT64_MAX : (int64_t)ns;
}

static long set_attributes(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique, size_t index) {
  struct arrival *file = &a->files[index];
  if (length < SET_END) return ANSWER_OTHER;
  uint32_t valid = get32(slot + SET_VALID);
  if (valid & ~(uint32_t)SETTABLE || file->mode & SET_ID) return ANSWER_OTHER;
  uint32_t mode = valid & BY_MODE ? (file->mode & ~(uint32_t)PERMISSIONS) | (get32(slot + SET_MODE) & PERMISSIONS) : file->mode;
  uint32_t uid = valid & BY_UID ? get32(slot + SET_UID) : file->uid, gid = valid & BY_GID ? get32(slot + SET_GID) : file->gid;
  int64_t atime = valid & BY_ATIME ? time_at(slot, SET_ATIME, SET_ATIME_NS) : file->atime_ns, mtime = valid & BY_MTIME ? time_at(slot, SET_MTIME, SET_MTIME_NS) : file->mtime_ns;
  int sets_mtime = (valid & (BY_MTIME | BY_MTIME_NOW)) != 0;
  if (a->is_live && !(valid & BY_MTIME_NOW) && (!(valid & BY_ATIME_NOW) || sets_mtime) && mode == file->mode && uid == file->uid && gid == file->gid && mtime == file->mtime_ns
      && (atime == file->atime_ns || sets_mtime)) {
    return put_attr_reply(a, slot, unique, index);
  }
  int64_t now = now_ns(a);
  file->mode = mode;
  file->uid = uid;
  file->gid = gid;
  file->atime_ns = valid & BY_ATIME_NOW ? now : atime;
  file->mtime_ns = valid & BY_MTIME_NOW ? now : mtime;
  file->ctime_ns = now;
  return put_attr_reply(a, slot, unique, index);
}

/* An ACL that says no more than a mode: user, group, others. */
static int mode_of_acl(const uint8_t *acl, uint32_t *permissions) {
  static const uint16_t tags[] = {1, 4, 32};
  if (get32(acl) != 2) return 0;
  *permissions = 0;
  for (size_t i = 0; i < 3; i++) {
    uint16_t entry[2];
    memcpy(entry, acl + 4 + 8 * i, sizeof entry);
    if (entry[0] != tags[i] || entry[1] > 7 || get32(acl + 8 + 8 * i) != UINT32_MAX) return 0;
    *permissions = *permissions << 3 | entry[1];
  }
  return 1;
}

static long set_acl(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique, size_t index) {
  static const char name[] = "system.posix_acl_access";
  struct arrival *file = &a->files[index];
  /* The header has two lengths: where the shorter one has a name the longer one has flags, of which there is one, and zeros. */
  size_t name_at = length == XATTR_NAME + sizeof name + ACL_BYTES ? XATTR_NAME : XATTR_LONG_NAME;
  if (name_at == XATTR_LONG_NAME && (get32(slot + XATTR_NAME) > 1 || get32(slot + XATTR_NAME + 4) != 0)) return ANSWER_OTHER;
  uint32_t permissions;
  if (length != name_at + sizeof name + ACL_BYTES || memcmp(slot + name_at, name, sizeof name) != 0 || get32(slot + XATTR_SIZE) != ACL_BYTES) return ANSWER_OTHER;
  if (get32(slot + XATTR_FLAGS) & XATTR_REPLACE || file->mode & SET_ID || !mode_of_acl(slot + name_at + sizeof name, &permissions)) return ANSWER_OTHER;
  file->mode = (file->mode & ~0777u) | permissions;
  file->ctime_ns = now_ns(a);
  return put_reply(slot, unique, 0);
}

static long answer_file(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique, size_t index) {
  struct arrival *file = &a->files[index];
  switch (get32(slot + 4)) {
    case GETATTR: return put_attr_reply(a, slot, unique, index);
    case SETATTR: return set_attributes(a, slot, length, unique, index);
    case SETXATTR: return set_acl(a, slot, length, unique, index);
    case WRITE: return write_to(a, slot, length, unique, index);
    case RELEASE:
      if (length < REQUEST + 8 || !file->is_open || get64(slot + REQUEST) != a->first_handle + index) return ANSWER_OTHER;
      file->is_open = 0;
      return put_reply(slot, unique, 0);
    default: return ANSWER_OTHER;
  }
}

static long answer_directory(struct arrivals *a, uint8_t *slot, size_t length, uint64_t unique) {
  switch (get32(slot + 4)) {
    case LOOKUP: {
      size_t name_length = name_at(slot, length, REQUEST);
      if (!name_length || *place_of(a, hash_of(a, slot + REQUEST, name_length))) return ANSWER_OTHER;
      return put_reply(slot, unique, -ENOENT);
    }
    case GETATTR:
      put_ttl(a, slot + REPLY);
      put_attr(slot + REPLY + 16, a->directory, a->directory_size, a->directory_atime_ns, a->directory_mtime_ns, a->directory_ctime_ns, a->directory_mode, a->directory_nlink,
               a->directory_uid, a->directory_gid, 0);
      return put_reply(slot, unique, 16 + ATTR);
    case CREATE: return create(a, slot, length, unique);
    default: return ANSWER_OTHER;
  }
}

long arrivals_answer(struct arrivals *a, uint8_t *slot, size_t length, size_t room) {
  if (length < REQUEST || room < BLOCK) return ANSWER_OTHER;
  uint64_t unique = get64(slot + 8), node = get64(slot + 16);
  if (node == a->directory) return answer_directory(a, slot, length, unique);
  return node >= a->first_node && node - a->first_node < a->count ? answer_file(a, slot, length, unique, (size_t)(node - a->first_node)) : ANSWER_OTHER;
}

void arrivals_not_taken(struct arrivals *a) {
  /* Only the answer to a creation gives something: a handle, which nobody will give back. */
  if (a->just_made) a->files[a->just_made - 1].is_open = 0;
}
