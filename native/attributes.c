#include "attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Some file systems know years beyond what 64 bits of nanoseconds tell (1677 to 2262): the nearest that can be told. */
static int64_t nanoseconds(struct statx_timestamp time) {
  int64_t whole, all;
  if (__builtin_mul_overflow((int64_t)time.tv_sec, (int64_t)1000000000, &whole) || __builtin_add_overflow(whole, (int64_t)time.tv_nsec, &all)) {
    return time.tv_sec < 0 ? INT64_MIN : INT64_MAX;
  }
  return all;
}

/* Only for file systems whose statx does not tell the flags. */
static int64_t flags_by_ioctl(int dir_fd, const char *name) {
  int flags = 0;
  int fd = openat(dir_fd, *name ? name : ".", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) flags = 0;
  close(fd);
  return flags;
}

int attributes_stat(int dir_fd, const char *name, int want, int64_t *row) {
  struct statx facts;
  memset(row, 0, ATTRIBUTE_ROW * sizeof *row);
  if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH), STATX_BASIC_STATS, &facts) != 0) {
    row[ATTRIBUTE_ERROR] = errno;
    return errno;
  }
  row[0] = (int64_t)makedev(facts.stx_dev_major, facts.stx_dev_minor);
  row[1] = (int64_t)facts.stx_ino;
  row[2] = facts.stx_mode;
  row[3] = facts.stx_nlink;
  row[4] = facts.stx_uid;
  row[5] = facts.stx_gid;
  row[6] = (int64_t)makedev(facts.stx_rdev_major, facts.stx_rdev_minor);
  row[7] = (int64_t)facts.stx_size;
  row[8] = (int64_t)facts.stx_blocks;
  row[9] = nanoseconds(facts.stx_atime);
  row[10] = nanoseconds(facts.stx_mtime);
  row[11] = nanoseconds(facts.stx_ctime);
  if ((want & WANT_FS_FLAGS) && (S_ISREG(facts.stx_mode) || S_ISDIR(facts.stx_mode))) {
    const uint64_t known = STATX_ATTR_COMPRESSED | STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
    if (facts.stx_attributes_mask & known) {
      uint64_t set = facts.stx_attributes & facts.stx_attributes_mask;
      row[ATTRIBUTE_FS_FLAGS] = (set & STATX_ATTR_COMPRESSED ? FS_COMPR_FL : 0) | (set & STATX_ATTR_IMMUTABLE ? FS_IMMUTABLE_FL : 0) |
                                (set & STATX_ATTR_APPEND ? FS_APPEND_FL : 0) | (set & STATX_ATTR_NODUMP ? FS_NODUMP_FL : 0);
    } else if (*name || S_ISDIR(facts.stx_mode)) {
      row[ATTRIBUTE_FS_FLAGS] = flags_by_ioctl(dir_fd, name);
    } else {
      int flags = 0;
      row[ATTRIBUTE_FS_FLAGS] = ioctl(dir_fd, FS_IOC_GETFLAGS, &flags) == 0 ? flags : 0;
    }
  }
  return 0;
}

static int reserve(struct packed *out, size_t more) {
  if (out->length + more <= out->capacity) return 0;
  size_t capacity = out->capacity ? out->capacity * 2 : 512;
  while (capacity < out->length + more) capacity *= 2;
  uint8_t *grown = realloc(out->data, capacity);
  if (!grown) return ENOMEM;
  out->data = grown;
  out->capacity = capacity;
  return 0;
}

/* Appends one attribute. One that went away meanwhile, or may not be read, is left out. */
static int append(const char *path, const char *name, struct packed *out) {
  size_t name_length = strlen(name);
  size_t guess = 256;
  for (;;) {
    int error = reserve(out, 2 + name_length + 4 + guess);
    if (error) return error;
    uint8_t *at = out->data + out->length;
    ssize_t length = lgetxattr(path, name, at + 2 + name_length + 4, guess);
    if (length < 0 && errno == ERANGE) {
      length = lgetxattr(path, name, NULL, 0);
      if (length < 0) return errno == ENODATA || errno == EPERM ? 0 : errno;
      guess = (size_t)length + 64;
      continue;
    }
    if (length < 0) return errno == ENODATA || errno == EOPNOTSUPP || errno == EPERM ? 0 : errno;
    at[0] = name_length & 255;
    at[1] = name_length >> 8;
    memcpy(at + 2, name, name_length);
    uint32_t size = (uint32_t)length;
    at[2 + name_length] = size & 255;
    at[3 + name_length] = size >> 8 & 255;
    at[4 + name_length] = size >> 16 & 255;
    at[5 + name_length] = size >> 24;
    out->length += 2 + name_length + 4 + size;
    return 0;
  }
}

int attributes_xattrs(const char *path, int want, struct packed *out) {
  char first[1024];
  char *names = first;
  ssize_t length = llistxattr(path, names, sizeof first);
  while (length < 0 && errno == ERANGE) {
    ssize_t need = llistxattr(path, NULL, 0);
    if (need < 0) break;
    if (names != first) free(names);
    names = malloc((size_t)need + 256);
    if (!names) return ENOMEM;
    length = llistxattr(path, names, (size_t)need + 256);
  }
  int error = 0;
  if (length < 0) {
    error = errno == EOPNOTSUPP || errno == ENOSYS || errno == EPERM ? 0 : errno;
  } else {
    for (char *name = names; name < names + length && !error; name += strlen(name) + 1) {
      int acl = strncmp(name, "system.posix_acl_", 17) == 0;
      if (want & (acl ? WANT_ACLS : WANT_XATTRS)) error = append(path, name, out);
    }
  }
  if (names != first) free(names);
  return error;
}
