/* What is done to the contents of open files. */
#define _GNU_SOURCE
#include "fsx.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { buffer_size = 1 << 18 };
static unsigned char bytes[buffer_size], got[sides][buffer_size];

static off_t size_of(int fd) {
  struct stat stat;
  return fstat(fd, &stat) ? 0 : stat.st_size;
}

/* Mostly within the file or just behind it, often on a page's edge. */
static off_t random_offset(int slot) {
  off_t size = size_of(slot_fd[slot][0]);
  off_t offset = chance(12) ? (off_t)pick(max_file - buffer_size) : (off_t)pick((uint32_t)size + 5000);
  return chance(3) ? offset & ~(off_t)4095 : offset;
}

static size_t random_length(void) {
  size_t length = chance(4) ? pick(buffer_size) : chance(3) ? pick(20000) : pick(600);
  return chance(4) ? (length & ~(size_t)4095) : length;
}

static void fill(size_t length) {
  if (chance(8)) {
    memset(bytes, 0, length);
    return;
  }
  uint32_t value = pick(1u << 31);
  for (size_t at = 0; at < length; at++) bytes[at] = (unsigned char)((value = value * 1664525 + 1013904223) >> 24);
}

static void do_write(int slot) {
  off_t offset = random_offset(slot);
  size_t length = random_length();
  fill(length);
  if (chance(3)) {
    doing("lseek and write %d: %zu at %lld", slot, length, (long long)offset);
    BOTH(lseek(slot_fd[slot][side], offset, SEEK_SET));
    agree();
    BOTH(write(slot_fd[slot][side], bytes, length));
    agree();
    BOTH(lseek(slot_fd[slot][side], 0, SEEK_CUR));
  } else if (chance(3)) {
    struct iovec pieces[3] = { { bytes, length / 3 }, { bytes + length / 3, length / 3 }, { bytes, length / 4 } };
    doing("pwritev %d: %zu, %zu and %zu at %lld", slot, pieces[0].iov_len, pieces[1].iov_len, pieces[2].iov_len, (long long)offset);
    BOTH(pwritev(slot_fd[slot][side], pieces, 3, offset));
  } else {
    doing("pwrite %d: %zu at %lld", slot, length, (long long)offset);
    BOTH(pwrite(slot_fd[slot][side], bytes, length, offset));
  }
  agree();
}

static void do_read(int slot) {
  off_t offset = random_offset(slot);
  size_t length = random_length();
  doing("pread %d: %zu at %lld", slot, length, (long long)offset);
  BOTH(pread(slot_fd[slot][side], got[side], length, offset));
  agree();
  if (result[0] > 0 && memcmp(got[0], got[1], (size_t)result[0])) {
    long at = 0;
    while (got[0][at] == got[1][at]) at++;
    disagree("byte %lld is %02x, tested gives %02x", (long long)offset + at, got[0][at], got[1][at]);
  }
}

static void do_ftruncate(int slot) {
  off_t size = random_offset(slot);
  doing("ftruncate %d: %lld", slot, (long long)size);
  BOTH(ftruncate(slot_fd[slot][side], size));
  agree();
}

static void do_fallocate(int slot) {
  static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE };
  int mode = modes[pick(7)];
  off_t offset = random_offset(slot), length = (off_t)random_length();
  doing("fallocate %d mode %d: %lld at %lld", slot, mode, (long long)length, (long long)offset);
  BOTH(fallocate(slot_fd[slot][side], mode, offset, length));
  agree();
}

static void do_mmap(int slot) {
  off_t size = size_of(slot_fd[slot][0]);
  if (size == 0) return;
  off_t start = (off_t)pick((uint32_t)size) & ~(off_t)4095;
  size_t length = 1 + pick((uint32_t)(size - start));
  if (length > buffer_size) length = buffer_size;
  size_t from = pick((uint32_t)length);
  int how = (int)pick(3);
  fill(length);
  doing("mmap write %d: %zu at %lld, then %s", slot, length - from, (long long)(start + (off_t)from), how == 0 ? "msync" : how == 1 ? "munmap" : "fsync");
  int may_write = (slot_flags[slot] & O_ACCMODE) == O_RDWR;
  for (int side = 0; side < sides; side++) {
    unsigned char *mapped = mmap(NULL, length, PROT_READ | (may_write ? PROT_WRITE : 0), MAP_SHARED, slot_fd[slot][side], start);
    result[side] = mapped == MAP_FAILED ? -1 : 0;
    error[side] = mapped == MAP_FAILED ? errno : 0;
    if (mapped == MAP_FAILED) continue;
    memcpy(got[side], mapped, length);
    if (may_write) memcpy(mapped + from, bytes + from, length - from);
    if (how == 0 && msync(mapped, length, MS_SYNC)) error[side] = errno;
    munmap(mapped, length);
    if (how == 2 && fsync(slot_fd[slot][side])) error[side] = errno;
  }
  agree();
  if (result[0] == 0 && memcmp(got[0], got[1], length)) disagree("the mapped bytes differ");
}

static void do_copy_range(int slot) {
  int from = (int)pick(open_slots);
  if (slot_fd[from][0] < 0) return;
  off_t in = random_offset(from), out = random_offset(slot);
  size_t length = random_length(), copied[sides] = { 0, 0 };
  doing("copy_file_range %d at %lld to %d at %lld: %zu", from, (long long)in, slot, (long long)out, length);
  /* It may copy less than asked for at a time. */
  for (int side = 0; side < sides; side++) {
    off_t in_now = in, out_now = out;
    result[side] = error[side] = 0;
    while (copied[side] < length) {
      ssize_t count = copy_file_range(slot_fd[from][side], &in_now, slot_fd[slot][side], &out_now, length - copied[side], 0);
      if (count < 0) error[side] = errno;
      if (count <= 0) break;
      copied[side] += (size_t)count;
    }
    result[side] = (long)copied[side];
  }
  agree();
}

/* Where holes are is the file system's choice; that nothing but zeros is in them is not. */
static void do_seek(int slot) {
  off_t offset = random_offset(slot), size = size_of(slot_fd[slot][0]);
  off_t data[sides], hole[sides];
  doing("seek hole and data %d at %lld of %lld", slot, (long long)offset, (long long)size);
  BOTH(data[side] = lseek(slot_fd[slot][side], offset, SEEK_DATA));
  if (offset >= size) agree();
  int data_error = error[tested];
  BOTH(hole[side] = lseek(slot_fd[slot][side], offset, SEEK_HOLE));
  if ((hole[0] < 0) != (hole[1] < 0)) disagree("SEEK_HOLE: trusted %lld, tested %lld", (long long)hole[0], (long long)hole[1]);
  if (offset >= size) return;
  if (hole[tested] < offset || hole[tested] > size) disagree("SEEK_HOLE: tested says %lld", (long long)hole[tested]);
  if (data[tested] < 0 && data_error != ENXIO) disagree("SEEK_DATA: %s", strerror(data_error));
  off_t until = data[tested] < 0 ? size : data[tested];
  if (until < offset || until > size) disagree("SEEK_DATA: tested says %lld", (long long)until);
  /* Both at once would be neither. But what was a hole between the two questions may be chunks by the second one. */
  int at_once = 0;
  for (int times = 0; times < 3 && !at_once; times++) {
    if (times > 0) data[tested] = lseek(slot_fd[slot][tested], offset, SEEK_DATA), hole[tested] = lseek(slot_fd[slot][tested], offset, SEEK_HOLE);
    at_once = data[tested] == offset ? hole[tested] != offset : hole[tested] == offset;
  }
  if (!at_once) disagree("SEEK_DATA says %lld, SEEK_HOLE %lld", (long long)data[tested], (long long)hole[tested]);
  if ((slot_flags[slot] & O_ACCMODE) == O_WRONLY) return;
  for (off_t at = offset; at < until; at += buffer_size) {
    ssize_t count = pread(slot_fd[slot][trusted], got[0], buffer_size, at);
    for (ssize_t byte = 0; byte < count && at + byte < until; byte++) if (got[0][byte]) disagree("tested says hole at %lld, where there is data", (long long)(at + byte));
  }
}

static void do_sync(int slot) {
  doing("fsync %d", slot);
  BOTH(chance(2) ? fsync(slot_fd[slot][side]) : fdatasync(slot_fd[slot][side]));
  agree();
}

static void do_append_flag(int slot) {
  slot_flags[slot] ^= O_APPEND;
  doing("fcntl %d: O_APPEND %s", slot, slot_flags[slot] & O_APPEND ? "on" : "off");
  BOTH(fcntl(slot_fd[slot][side], F_SETFL, slot_flags[slot] & (O_APPEND | O_NONBLOCK)));
  agree();
}

void operate_on_content(int slot) {
  static void (*const kinds[])(int) = {
    do_write, do_write, do_write, do_write, do_write, do_write, do_read, do_read, do_read, do_ftruncate, do_fallocate, do_fallocate, do_mmap, do_mmap, do_copy_range, do_copy_range, do_seek, do_seek,
  };
  if (chance(60)) do_sync(slot);
  else if (chance(40)) do_append_flag(slot);
  else kinds[pick(sizeof kinds / sizeof *kinds)](slot);
}

/* A copy of a file of an archive, as a whole or a stretch: by copy_file_range on the tested side, byte by byte on the other. */
void clone_from_source(void) {
  int slot = (int)pick(open_slots);
  if (slot_fd[slot][0] < 0 || (slot_flags[slot] & O_ACCMODE) == O_RDONLY || (slot_flags[slot] & O_APPEND)) return;
  char name[16];
  snprintf(name, sizeof name, "f%u", pick(4));
  int fds[sides];
  for (int side = 0; side < sides; side++) {
    char path[max_path];
    snprintf(path, sizeof path, "%s/%s", source[side], name);
    become(0);
    if ((fds[side] = open(path, O_RDONLY)) < 0) disagree("open %s: %s", path, strerror(errno));
  }
  off_t size = size_of(fds[0]), in = chance(2) ? 0 : (off_t)pick((uint32_t)size), out = chance(2) ? 0 : random_offset(slot);
  off_t length = chance(2) ? size - in : (off_t)pick((uint32_t)(size - in) + 1);
  doing("clone %s: %lld from %lld to %d at %lld", name, (long long)length, (long long)in, slot, (long long)out);
  unsigned char *whole = malloc((size_t)length + 1);
  if (pread(fds[0], whole, (size_t)length, in) != length || pwrite(slot_fd[slot][0], whole, (size_t)length, out) != length) disagree("the trusted copy failed: %s", strerror(errno));
  free(whole);
  off_t left = length;
  while (left > 0) {
    ssize_t count = copy_file_range(fds[1], &in, slot_fd[slot][1], &out, (size_t)left, 0);
    if (count <= 0) disagree("copy_file_range: %zd, %s", count, strerror(errno));
    left -= count;
  }
  close(fds[0]);
  close(fds[1]);
}
