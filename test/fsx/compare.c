/* Whether the two sides look the same: contents, attributes, xattrs, names, and which names are one file. */
#define _GNU_SOURCE
#include "fsx.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { piece = 1 << 18, max_names = 20000, list_size = 65536 };

static ssize_t read_piece(int fd, char *into, off_t offset) {
  ssize_t total = 0;
  while (total < piece) {
    ssize_t got = pread(fd, into + total, (size_t)(piece - total), offset + total);
    if (got < 0) return -errno;
    if (got == 0) break;
    total += got;
    /* O_DIRECT: what follows an odd length is the end. */
    if (got % 512) break;
  }
  return total;
}

void compare_files(int fd_a, int fd_b, const char *name) {
  static char buffers[sides][piece] __attribute__((aligned(4096)));
  for (off_t offset = 0; ; offset += piece) {
    ssize_t a = read_piece(fd_a, buffers[0], offset), b = read_piece(fd_b, buffers[1], offset);
    if (a != b) disagree("%s: at %lld, trusted gives %zd bytes, tested %zd", name, (long long)offset, a, b);
    for (ssize_t at = 0; at < a; at++)
      if (buffers[0][at] != buffers[1][at])
        disagree("%s: byte %lld is %02x, tested has %02x", name, (long long)(offset + at), (unsigned char)buffers[0][at], (unsigned char)buffers[1][at]);
    if (a < piece) return;
  }
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* As text, sorted: name=value in hex. */
static void xattrs_of(const char *path, char *text, size_t size) {
  char names[list_size], *sorted[256];
  ssize_t length = llistxattr(path, names, sizeof names);
  int count = 0;
  text[0] = 0;
  if (length < 0) {
    snprintf(text, size, "%s", strerror(errno));
    return;
  }
  for (char *name = names; name < names + length; name += strlen(name) + 1) sorted[count++] = name;
  qsort(sorted, (size_t)count, sizeof *sorted, by_text);
  size_t at = 0;
  for (int index = 0; index < count; index++) {
    unsigned char value[4096];
    ssize_t got = lgetxattr(path, sorted[index], value, sizeof value);
    at += (size_t)snprintf(text + at, size - at, "%s=", sorted[index]);
    if (got < 0) at += (size_t)snprintf(text + at, size - at, "%s", strerror(errno));
    for (ssize_t byte = 0; byte < got; byte++) at += (size_t)snprintf(text + at, size - at, "%02x", value[byte]);
    at += (size_t)snprintf(text + at, size - at, " ");
  }
}

static int lost_set_group(mode_t a, mode_t b) { return (a ^ b) == S_ISGID && S_ISREG(a) && !(a & (S_IXGRP | S_ISGID)); }

void settle_set_group(const char *path, int slot) {
  struct stat stats[sides];
  if (stat(at_side(trusted, path), &stats[trusted]) == 0 && stat(at_side(tested, path), &stats[tested]) == 0 && lost_set_group(stats[trusted].st_mode, stats[tested].st_mode))
    chmod(at_side(tested, path), stats[trusted].st_mode & 07777);
  if (slot_fd[slot][0] >= 0 && fstat(slot_fd[slot][trusted], &stats[trusted]) == 0 && fstat(slot_fd[slot][tested], &stats[tested]) == 0
      && lost_set_group(stats[trusted].st_mode, stats[tested].st_mode))
    fchmod(slot_fd[slot][tested], stats[trusted].st_mode & 07777);
}

void compare_attributes(const char *path) {
  struct stat stats[sides];
  BOTH(lstat(at_side(side, path), &stats[side]));
  if (result[0] != result[1] || error[0] != error[1]) disagree("lstat %s: trusted %s, tested %s", path, strerror(error[0]), strerror(error[1]));
  if (result[0] < 0) return;
  const struct stat *a = &stats[0];
  const struct stat *b = &stats[1];
  if (a->st_mode != b->st_mode || a->st_uid != b->st_uid || a->st_gid != b->st_gid || a->st_nlink != b->st_nlink || a->st_rdev != b->st_rdev
      || (!S_ISDIR(a->st_mode) && a->st_size != b->st_size))
    disagree("%s: trusted mode %o owner %u:%u links %lu size %lld, tested mode %o owner %u:%u links %lu size %lld", path, a->st_mode, a->st_uid, a->st_gid,
      (unsigned long)a->st_nlink, (long long)a->st_size, b->st_mode, b->st_uid, b->st_gid, (unsigned long)b->st_nlink, (long long)b->st_size);
}

/* The first name that was seen of each file, by inode: both sides must see the same. */
static struct { ino_t ino[sides]; char *name; } *seen;
static size_t seen_count, seen_room;

static void compare_links(const struct stat *a, const struct stat *b, const char *path) {
  for (size_t index = 0; index < seen_count; index++) {
    int in_a = seen[index].ino[0] == a->st_ino, in_b = seen[index].ino[1] == b->st_ino;
    if (in_a != in_b) disagree("%s and %s are one file %s", path, seen[index].name, in_a ? "where it is trusted, not where it is tested" : "where it is tested only");
    if (in_a) return;
  }
  if (seen_count == seen_room) seen = realloc(seen, (seen_room = seen_room * 2 + 64) * sizeof *seen);
  seen[seen_count].ino[0] = a->st_ino;
  seen[seen_count].ino[1] = b->st_ino;
  seen[seen_count++].name = strdup(path);
}

static int names_of(int side, const char *path, char **names) {
  DIR *directory = opendir(at_side(side, path));
  if (!directory) disagree("opendir %s on side %d: %s", path, side, strerror(errno));
  int count = 0;
  for (struct dirent *entry; (entry = readdir(directory));) if (count < max_names) names[count++] = strdup(entry->d_name);
  closedir(directory);
  qsort(names, (size_t)count, sizeof *names, by_text);
  return count;
}

typedef void visit(const char *path, const struct stat *a, const struct stat *b);

static void walk(const char *path, visit *each) {
  struct stat stats[sides];
  for (int side = 0; side < sides; side++) if (lstat(at_side(side, path), &stats[side])) disagree("%s vanished on side %d: %s", path, side, strerror(errno));
  if (S_ISDIR(stats[0].st_mode)) {
    char **names[sides];
    int counts[sides];
    for (int side = 0; side < sides; side++) counts[side] = names_of(side, path, names[side] = malloc(max_names * sizeof(char *)));
    for (int index = 0; index < counts[0] || index < counts[1]; index++) {
      const char *a = index < counts[0] ? names[0][index] : "", *b = index < counts[1] ? names[1][index] : "";
      if (strcmp(a, b)) disagree("listing of %s: trusted has %s, tested %s", path, a, b);
      if (!strcmp(a, ".") || !strcmp(a, "..")) continue;
      char below[max_path];
      snprintf(below, sizeof below, strcmp(path, ".") ? "%s/%s" : "%.0s%s", path, a);
      walk(below, each);
    }
    for (int side = 0; side < sides; side++) {
      for (int index = 0; index < counts[side]; index++) free(names[side][index]);
      free(names[side]);
    }
  }
  each(path, &stats[0], &stats[1]);
}

static void compare_one(const char *path, const struct stat *a, const struct stat *b) {
  static char xattrs[sides][2 * list_size];
  compare_attributes(path);
  for (int side = 0; side < sides; side++) xattrs_of(at_side(side, path), xattrs[side], sizeof xattrs[side]);
  if (strcmp(xattrs[0], xattrs[1])) disagree("xattrs of %s: trusted %s, tested %s", path, xattrs[0], xattrs[1]);
  if (S_ISLNK(a->st_mode)) {
    char targets[sides][max_path] = { "", "" };
    BOTH(readlink(at_side(side, path), targets[side], max_path - 1));
    if (result[0] != result[1] || strcmp(targets[0], targets[1])) disagree("target of %s: trusted %s, tested %s", path, targets[0], targets[1]);
  }
  if (S_ISREG(a->st_mode)) {
    /* O_DIRECT asks the file system itself, past the page cache. */
    int direct = chance(2) ? O_DIRECT : 0;
    int fds[sides] = { open(at_side(0, path), O_RDONLY), open(at_side(1, path), O_RDONLY | direct) };
    if (fds[0] < 0 || fds[1] < 0) disagree("open %s: %s", path, strerror(errno));
    compare_files(fds[0], fds[1], path);
    close(fds[0]);
    close(fds[1]);
  }
  if (!S_ISDIR(a->st_mode)) compare_links(a, b, path);
}

void compare_trees(void) {
  walk(".", compare_one);
  for (size_t index = 0; index < seen_count; index++) free(seen[index].name);
  seen_count = 0;
  for (int slot = 0; slot < open_slots; slot++) {
    if (slot_fd[slot][0] < 0) continue;
    struct stat stats[sides];
    BOTH(fstat(slot_fd[slot][side], &stats[side]));
    if (result[0] || result[1] || stats[0].st_size != stats[1].st_size || stats[0].st_nlink != stats[1].st_nlink || stats[0].st_mode != stats[1].st_mode)
      disagree("open file %d: trusted mode %o links %lu size %lld, tested mode %o links %lu size %lld", slot, stats[0].st_mode, (unsigned long)stats[0].st_nlink,
        (long long)stats[0].st_size, stats[1].st_mode, (unsigned long)stats[1].st_nlink, (long long)stats[1].st_size);
    if ((slot_flags[slot] & O_ACCMODE) != O_WRONLY) compare_files(slot_fd[slot][0], slot_fd[slot][1], "an open file");
  }
}

static void settle_one(const char *path, const struct stat *a, const struct stat *b) {
  (void)b;
  if (S_ISSOCK(a->st_mode)) {
    for (int side = 0; side < sides; side++) if (unlink(at_side(side, path))) disagree("unlink %s: %s", path, strerror(errno));
    return;
  }
  struct timespec times[2] = { { 1000000000 + pick(1000000), pick(1000000000) }, { 1200000000 + pick(1000000), pick(1000000000) } };
  for (int side = 0; side < sides; side++)
    if (utimensat(AT_FDCWD, at_side(side, path), times, AT_SYMLINK_NOFOLLOW)) disagree("utimensat %s: %s", path, strerror(errno));
}

void settle_trees(void) {
  /* Borg's extract restores the top directory first, so that all else would inherit its default ACL. */
  for (int side = 0; side < sides; side++) if (removexattr(root[side], "system.posix_acl_default")) disagree("the default ACL stays: %s", strerror(errno));
  walk(".", settle_one);
}
