/* What is done to names and attributes. What is done to contents is in content.c. */
#define _GNU_SOURCE
#include "fsx.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static char path[max_path], other[max_path];

static mode_t random_mode(void) {
  static const mode_t modes[] = { 0644, 0600, 0755, 0777, 0700, 0, 0444, 04755, 02755, 06777, 01777, 02777, 0666, 0770 };
  return modes[pick(sizeof modes / sizeof *modes)];
}

static void do_open(void) {
  int slot = (int)pick(open_slots);
  if (slot_fd[slot][0] >= 0) {
    doing("close %d", slot);
    BOTH(close(slot_fd[slot][side]));
    slot_fd[slot][0] = slot_fd[slot][1] = -1;
    return agree();
  }
  static const int accesses[] = { O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY };
  int flags = accesses[pick(5)] | O_NONBLOCK;
  if (!chance(3)) flags |= O_CREAT;
  if (chance(6)) flags |= O_EXCL;
  if (chance(8)) flags |= O_TRUNC;
  if (chance(5)) flags |= O_APPEND;
  if (chance(12)) flags |= O_NOFOLLOW;
  if (chance(30)) flags |= O_DIRECTORY;
  /* Means something else, and not the same everywhere. */
  if ((flags & O_EXCL) && !(flags & O_CREAT)) flags &= ~O_EXCL;
  if ((flags & O_DIRECTORY) && (flags & O_CREAT)) flags &= ~O_DIRECTORY;
  mode_t mode = random_mode();
  doing("open %d flags %o mode %o %s", slot, flags, mode, path);
  watch_times(path, NULL);
  int fds[sides];
  BOTH(fds[side] = open(at_side(side, path), flags, mode));
  BOTH(fds[side] < 0 ? (errno = error[side], -1) : 0);
  /* A device: mounted nodev. */
  if (error[trusted] == ENXIO && error[tested] == EACCES) error[tested] = ENXIO;
  if (result[0] != result[1]) return agree();
  if (fds[0] >= 0) {
    struct stat stat;
    fstat(fds[0], &stat);
    /* Directories, pipes and devices are not for reading and writing here. */
    if (!S_ISREG(stat.st_mode)) {
      close(fds[0]);
      close(fds[1]);
      return agree();
    }
    slot_flags[slot] = flags;
    for (int side = 0; side < sides; side++) slot_fd[slot][side] = fds[side];
  }
  agree();
}

static void do_mkdir(void) {
  mode_t mode = random_mode();
  doing("mkdir %o %s", mode, path);
  watch_times(path, NULL);
  BOTH(mkdir(at_side(side, path), mode));
  agree();
}

static void do_rmdir(void) {
  doing("rmdir %s", path);
  watch_times(path, NULL);
  BOTH(rmdir(at_side(side, path)));
  agree();
}

static void do_unlink(void) {
  doing("unlink %s", path);
  watch_times(path, NULL);
  BOTH(unlink(at_side(side, path)));
  agree();
}

static void do_link(void) {
  int follow = chance(4) ? AT_SYMLINK_FOLLOW : 0;
  doing("link %s to %s, flags %d", path, other, follow);
  watch_times(path, other);
  BOTH(linkat(AT_FDCWD, at_side(side, path), AT_FDCWD, at_side(side, other), follow));
  agree();
}

static void do_symlink(void) {
  static const char *targets[] = { "a", "b/c", "d e", "nowhere", ".", "g/\xff\xfe", "c" };
  const char *target = targets[pick(7)];
  doing("symlink %s to %s", path, target);
  watch_times(path, NULL);
  BOTH(symlink(target, at_side(side, path)));
  agree();
}

static void do_mknod(void) {
  static const mode_t types[] = { S_IFIFO, S_IFREG, S_IFCHR, S_IFBLK, S_IFSOCK };
  mode_t mode = types[pick(5)] | random_mode();
  /* For experiments: nothing answers when one is opened. */
  dev_t device = makedev(60 + pick(3), pick(300));
  doing("mknod %o %s", mode, path);
  watch_times(path, NULL);
  BOTH(mknod(at_side(side, path), mode, (mode & S_IFMT) == S_IFCHR || (mode & S_IFMT) == S_IFBLK ? device : 0));
  agree();
}

static void do_rename(void) {
  static const unsigned kinds[] = { 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_EXCHANGE };
  unsigned flags = kinds[pick(7)];
  doing("rename %s to %s, flags %u", path, other, flags);
  watch_times(path, other);
  BOTH(syscall(SYS_renameat2, AT_FDCWD, at_side(side, path), AT_FDCWD, at_side(side, other), flags));
  agree();
}

static void do_chmod(void) {
  mode_t mode = random_mode();
  int slot = (int)pick(open_slots);
  if (slot_fd[slot][0] >= 0 && chance(4)) {
    doing("fchmod %d %o", slot, mode);
    BOTH(fchmod(slot_fd[slot][side], mode));
  } else {
    doing("chmod %o %s", mode, path);
    watch_times(path, NULL);
    BOTH(chmod(at_side(side, path), mode));
  }
  agree();
}

/* A file of somebody else with set-id bits that is open for writing: of a write by the asker the kernel says the same as of his chown to nobody (docs/limits.md). */
static int may_be_written_by_anybody(void) {
  struct stat of_path, of_slot;
  if (stat(at_side(trusted, path), &of_path) || !(of_path.st_mode & (S_ISUID | S_ISGID)) || of_path.st_uid == geteuid()) return 0;
  for (int slot = 0; slot < open_slots; slot++)
    if (slot_fd[slot][0] >= 0 && (slot_flags[slot] & O_ACCMODE) != O_RDONLY && fstat(slot_fd[slot][trusted], &of_slot) == 0 && of_slot.st_ino == of_path.st_ino) return 1;
  return 0;
}

static void do_chown(void) {
  static const uid_t ids[] = { 0, 1001, 1002, (uid_t)-1, 70000 };
  uid_t user = ids[pick(5)], group = ids[pick(5)];
  int flags = chance(2) ? AT_SYMLINK_NOFOLLOW : 0;
  if (user == (uid_t)-1 && group == (uid_t)-1 && geteuid() != 0 && may_be_written_by_anybody()) return;
  doing("chown %d:%d flags %d %s", (int)user, (int)group, flags, path);
  watch_times(path, NULL);
  BOTH(fchownat(AT_FDCWD, at_side(side, path), user, group, flags));
  agree();
}

static void do_utimens(void) {
  struct timespec times[2];
  for (int index = 0; index < 2; index++) {
    times[index].tv_sec = (time_t)pick(2000000000);
    times[index].tv_nsec = (long)pick(1000000000);
    if (chance(5)) times[index].tv_nsec = UTIME_NOW;
    else if (chance(4)) times[index].tv_nsec = UTIME_OMIT;
  }
  int flags = chance(2) ? AT_SYMLINK_NOFOLLOW : 0, both_now = chance(8);
  int slot = (int)pick(open_slots), by_fd = chance(4) && slot_fd[slot][0] >= 0;
  doing("utimens %s %d: %ld.%09ld %ld.%09ld flags %d now %d", by_fd ? "file" : path, by_fd ? slot : -1, times[0].tv_sec, times[0].tv_nsec, times[1].tv_sec, times[1].tv_nsec, flags, both_now);
  if (by_fd) BOTH(futimens(slot_fd[slot][side], both_now ? NULL : times));
  else BOTH(utimensat(AT_FDCWD, at_side(side, path), both_now ? NULL : times, flags));
  agree();
  struct stat stats[sides];
  if (result[0] < 0 || both_now) return;
  for (int side = 0; side < sides; side++)
    if ((by_fd ? fstat(slot_fd[slot][side], &stats[side]) : fstatat(AT_FDCWD, at_side(side, path), &stats[side], flags)) < 0) return;
  for (int side = 0; side < sides; side++) {
    const struct timespec *found[2] = { &stats[side].st_atim, &stats[side].st_mtim };
    for (int index = 0; index < 2; index++) {
      if (times[index].tv_nsec == UTIME_NOW || times[index].tv_nsec == UTIME_OMIT) continue;
      /* To look at it is to read it already. */
      if (index == 0 && !S_ISREG(stats[side].st_mode)) continue;
      if (found[index]->tv_sec != times[index].tv_sec || found[index]->tv_nsec != times[index].tv_nsec)
        disagree("side %d: time %d became %ld.%09ld", side, index, found[index]->tv_sec, found[index]->tv_nsec);
    }
  }
}

static void do_truncate(void) {
  off_t size = chance(10) ? (off_t)pick(max_file) : (off_t)pick(100000);
  doing("truncate %lld %s", (long long)size, path);
  watch_times(path, NULL);
  BOTH(truncate(at_side(side, path), size));
  agree();
}

static void do_xattr(void) {
  static const char *names[] = { "user.a", "user.b", "user.\xe4", "trusted.t", "security.s", "other.x", "user." };
  const char *name = names[pick(7)];
  unsigned char value[300], got[sides][512];
  uint32_t size = pick(chance(2) ? 20 : 300);
  for (uint32_t byte = 0; byte < size; byte++) value[byte] = (unsigned char)pick(256);
  switch (pick(4)) {
    case 0: case 1: {
      int flags = chance(3) ? XATTR_CREATE : chance(3) ? XATTR_REPLACE : 0;
      doing("setxattr %s %u bytes flags %d %s", name, size, flags, path);
      watch_times(path, NULL);
      BOTH(lsetxattr(at_side(side, path), name, value, size, flags));
      break;
    }
    case 2:
      doing("removexattr %s %s", name, path);
      watch_times(path, NULL);
      BOTH(lremovexattr(at_side(side, path), name));
      break;
    default: {
      size_t room = chance(3) ? 0 : chance(3) ? pick(10) : sizeof got[0];
      doing("getxattr %s %s, room for %zu", name, path, room);
      BOTH(lgetxattr(at_side(side, path), name, got[side], room));
      agree();
      if (result[0] > 0 && room > 0 && memcmp(got[0], got[1], (size_t)result[0])) disagree("the values differ");
      return;
    }
  }
  agree();
}

/* Access and default ACLs, as the kernel takes them. */
static void do_acl(void) {
  const char *name = chance(2) ? "system.posix_acl_access" : "system.posix_acl_default";
  if (chance(4)) {
    doing("remove %s %s", name, path);
    BOTH(removexattr(at_side(side, path), name));
    return agree();
  }
  struct { uint32_t version; struct { uint16_t tag, permissions; uint32_t id; } __attribute__((packed)) entries[5]; } __attribute__((packed)) acl = { 2, {
    { 1, (uint16_t)pick(8), ~0u }, { 2, (uint16_t)pick(8), 1001 }, { 4, (uint16_t)pick(8), ~0u }, { 16, (uint16_t)pick(8), ~0u }, { 32, (uint16_t)pick(8), ~0u } } };
  size_t size = sizeof acl;
  if (chance(3)) {
    /* The minimal one, which is just a mode. */
    acl.entries[1] = acl.entries[2];
    acl.entries[2] = acl.entries[4];
    size -= 16;
  }
  doing("set %s of %zu bytes: %o %o %o %o %o on %s", name, size, acl.entries[0].permissions, acl.entries[1].permissions, acl.entries[2].permissions, acl.entries[3].permissions, acl.entries[4].permissions, path);
  BOTH(setxattr(at_side(side, path), name, &acl, size, 0));
  agree();
}

static void do_access(void) {
  int mode = (int)pick(8);
  doing("access %d %s", mode, path);
  BOTH(faccessat(AT_FDCWD, at_side(side, path), mode, AT_EACCESS));
  agree();
}

static void do_readlink(void) {
  char targets[sides][64];
  doing("readlink %s", path);
  BOTH(readlink(at_side(side, path), targets[side], sizeof targets[side]));
  agree();
}

static void do_umask(void) {
  static const mode_t masks[] = { 022, 077, 0, 027, 022 };
  mode_t mask = masks[pick(5)];
  doing("umask %o", mask);
  umask(mask);
}

void operate(void) {
  static void (*const names[])(void) = {
    do_open, do_open, do_open, do_open, do_mkdir, do_mkdir, do_mkdir, do_rmdir, do_unlink, do_unlink, do_link, do_link, do_symlink, do_mknod, do_rename, do_rename, do_rename,
    do_chmod, do_chmod, do_chown, do_utimens, do_utimens, do_truncate, do_truncate, do_xattr, do_xattr, do_acl, do_access, do_readlink, do_umask,
  };
  static const uint32_t users[] = { 0, 0, 0, 1001, 1002 };
  random_path(path);
  random_path(other);
  uint32_t user = users[pick(5)];
  become(user);
  int slot = (int)pick(open_slots);
  if (chance(2000)) {
    become(0);
    churn_directory();
  } else if (source[0] && chance(40)) clone_from_source();
  else if (slot_fd[slot][0] >= 0 && chance(2)) operate_on_content(slot);
  else names[pick(sizeof names / sizeof *names)]();
  become(0);
  if (user != 0) settle_set_group(path, slot);
  if (chance(4)) compare_attributes(path);
}
