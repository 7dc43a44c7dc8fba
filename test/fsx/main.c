/*
 * fsx SEED OPERATIONS COMPARE_EVERY COMMIT_EVERY TRUSTED TESTED [TRUSTED_SOURCE TESTED_SOURCE]
 * COMMIT_EVERY: 0, or after how many operations the tested tree is saved by its xattr. Exit code 1 and the last operations when the sides differ.
 * With FSX_UNSETTLED in the environment all is left as it is; else everything gets a time in the end.
 */
#define _GNU_SOURCE
#include "fsx.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

const char *root[sides], *source[sides];
int slot_fd[open_slots][sides], slot_flags[open_slots];
long result[sides];
int error[sides];

enum { kept_lines = 40, line_size = 700, max_watched = 4 };
static char lines[kept_lines][line_size];
static unsigned long done;
static uint64_t state;
static char watched[max_watched][max_path];
static int watched_count;
/* Not a time that anything gives by itself. */
static const struct timespec marked = { 1111111111, 222222222 };

void seed_chance(uint64_t seed) { state = seed * 0x9e3779b97f4a7c15ull + 0x1234567; }

uint32_t pick(uint32_t below) {
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return (uint32_t)((z ^ (z >> 31)) % below);
}

int chance(uint32_t of) { return pick(of) == 0; }

const char *at_side(int side, const char *relative) {
  static char paths[2][max_path * 2];
  static int turn;
  turn ^= 1;
  snprintf(paths[turn], sizeof paths[turn], "%s/%s", root[side], relative);
  return paths[turn];
}

void random_path(char *path) {
  static const char *names[] = { "a", "b", "c", "d e", "\xc3\xa9", "\xff\xfe", "g" };
  static char recent[16][max_path];
  static unsigned next;
  if (next > 16 && chance(3)) {
    strcpy(path, recent[pick(16)]);
    return;
  }
  size_t length = 0;
  for (uint32_t depth = 1 + pick(chance(3) ? 4 : 2); depth > 0; depth--) {
    if (length > 0) path[length++] = '/';
    if (chance(300)) {
      uint32_t size = chance(2) ? 255 : 256;
      memset(path + length, 'n', size);
      length += size;
    } else {
      const char *name = chance(200) ? "." : names[pick(sizeof names / sizeof *names)];
      length += (size_t)sprintf(path + length, "%s", name);
    }
  }
  path[length] = 0;
  strcpy(recent[next++ % 16], path);
}

void doing(const char *format, ...) {
  va_list values;
  va_start(values, format);
  int prefix = snprintf(lines[done % kept_lines], line_size, "%lu [%u] ", done, geteuid());
  vsnprintf(lines[done % kept_lines] + prefix, (size_t)(line_size - prefix), format, values);
  va_end(values);
  if (getenv("FSX_TRACE")) fprintf(stderr, "%s\n", lines[done % kept_lines]);
  done++;
  watched_count = 0;
}

void disagree(const char *format, ...) {
  va_list values;
  for (unsigned long line = done > kept_lines ? done - kept_lines : 0; line < done; line++) fprintf(stderr, "%s\n", lines[line % kept_lines]);
  va_start(values, format);
  vfprintf(stderr, format, values);
  va_end(values);
  fprintf(stderr, "\n");
  exit(1);
}

static void watch(const char *path) {
  snprintf(watched[watched_count++], max_path, "%s", path);
}

void watch_times(const char *path, const char *other) {
  if (!chance(6)) return;
  uid_t user = geteuid();
  become(0);
  const char *both[] = { path, other };
  for (int index = 0; index < 2; index++) {
    if (!both[index]) continue;
    watch(both[index]);
    const char *slash = strrchr(both[index], '/');
    char parent[max_path] = ".";
    if (slash) snprintf(parent, sizeof parent, "%.*s", (int)(slash - both[index]), both[index]);
    watch(parent);
  }
  const struct timespec times[2] = { marked, marked };
  for (int index = 0; index < watched_count; index++)
    for (int side = 0; side < sides; side++) utimensat(AT_FDCWD, at_side(side, watched[index]), times, AT_SYMLINK_NOFOLLOW);
  become(user);
}

void agree(void) {
  if (result[trusted] != result[tested] || error[trusted] != error[tested])
    disagree("trusted: %ld (%s), tested: %ld (%s)", result[trusted], strerror(error[trusted]), result[tested], strerror(error[tested]));
  if (watched_count == 0) return;
  uid_t user = geteuid();
  become(0);
  for (int index = 0; index < watched_count; index++) {
    int found[sides], same[sides];
    for (int side = 0; side < sides; side++) {
      struct stat stat;
      found[side] = lstat(at_side(side, watched[index]), &stat) == 0;
      same[side] = found[side] && stat.st_mtim.tv_sec == marked.tv_sec && stat.st_mtim.tv_nsec == marked.tv_nsec;
    }
    if (found[0] != found[1]) disagree("%s: trusted %s, tested %s", watched[index], found[0] ? "exists" : "is missing", found[1] ? "exists" : "is missing");
    if (same[0] != same[1]) disagree("mtime of %s: trusted %s, tested %s", watched[index], same[0] ? "stayed" : "changed", same[1] ? "stayed" : "changed");
  }
  watched_count = 0;
  become(user);
}

void become(uint32_t user) {
  if (geteuid() == user) return;
  if (seteuid(0) || setegid(user) || seteuid(user)) disagree("the user cannot be changed: %s", strerror(errno));
}

void close_slots(void) {
  for (int slot = 0; slot < open_slots; slot++) {
    if (slot_fd[slot][0] < 0) continue;
    for (int side = 0; side < sides; side++) close(slot_fd[slot][side]);
    slot_fd[slot][0] = slot_fd[slot][1] = -1;
  }
}

/* The tested tree becomes an archive; what can be seen of it stays the same. */
static void commit(void) {
  become(0);
  close_slots();
  doing("commit");
  for (int tries = 0; setxattr(root[tested], "user.borgfs.commit", "", 0, 0) < 0; tries++) {
    if (errno != EBUSY || tries == 50) disagree("commit: %s", strerror(errno));
    usleep(20000);  /* release of what was closed is on its way */
  }
  compare_trees();
}

int main(int count, char **arguments) {
  if (count != 7 && count != 9) return fprintf(stderr, "fsx SEED OPERATIONS COMPARE_EVERY COMMIT_EVERY TRUSTED TESTED [TRUSTED_SOURCE TESTED_SOURCE]\n"), 2;
  seed_chance(strtoull(arguments[1], NULL, 10));
  unsigned long operations = strtoul(arguments[2], NULL, 10), compare_every = strtoul(arguments[3], NULL, 10), commit_every = strtoul(arguments[4], NULL, 10);
  for (int side = 0; side < sides; side++) {
    root[side] = arguments[5 + side];
    source[side] = count == 9 ? arguments[7 + side] : NULL;
  }
  memset(slot_fd, -1, sizeof slot_fd);
  if (setgroups(0, NULL)) return perror("setgroups"), 2;
  umask(022);
  compare_trees();
  while (done < operations) {
    unsigned long before = done;
    operate();
    if (done / compare_every != before / compare_every) {
      become(0);
      compare_trees();
    }
    if (commit_every > 0 && done / commit_every != before / commit_every) commit();
  }
  become(0);
  close_slots();
  compare_trees();
  if (!getenv("FSX_UNSETTLED")) settle_trees();
  compare_trees();
  printf("%lu operations\n", done);
  return 0;
}
