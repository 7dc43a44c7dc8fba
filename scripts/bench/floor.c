/*
 * The floor under a drive that is copied into: a FUSE server that does nothing with what it gets. It keeps names and attributes in memory, so that
 * the kernel asks all that it asks of a drive, and forgets contents. bench.py measures `cp -a` into it (case drive.cp-src-floor).
 *
 *   floor MOUNTPOINT CPU     as root; ends with the mount
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROOM = 1 << 20, BUFFER = 1 << 21, FOR_EVER = 3600 };

struct name {
  uint64_t directory, node;
  char *text;
};

static struct fuse_attr nodes[ROOM];
static struct name names[ROOM];
static uint64_t next_node = 2;

/* Where the name is, or would be. */
static struct name *slot_of(uint64_t directory, const char *text) {
  uint32_t hash = (uint32_t)directory * 2654435761u;
  for (const char *at = text; *at; at++) hash = (hash ^ (uint8_t)*at) * 16777619u;
  for (;; hash++) {
    struct name *name = &names[hash % ROOM];
    if (!name->text || (name->directory == directory && strcmp(name->text, text) == 0)) return name;
  }
}

static size_t put_entry(void *out, uint64_t node) {
  struct fuse_entry_out entry = {.nodeid = node, .entry_valid = FOR_EVER, .attr_valid = FOR_EVER, .attr = nodes[node]};
  memcpy(out, &entry, sizeof entry);
  return sizeof entry;
}

static size_t put_attributes(void *out, uint64_t node) {
  struct fuse_attr_out reply = {.attr_valid = FOR_EVER, .attr = nodes[node]};
  memcpy(out, &reply, sizeof reply);
  return sizeof reply;
}

static size_t make(void *out, const struct fuse_in_header *header, const char *text, uint32_t mode) {
  uint64_t node = next_node++;
  if (node >= ROOM / 2) exit(1);
  nodes[node] = (struct fuse_attr){.ino = node, .mode = mode, .nlink = 1, .uid = header->uid, .gid = header->gid};
  *slot_of(header->nodeid, text) = (struct name){header->nodeid, node, strdup(text)};
  return put_entry(out, node);
}

static void change(uint64_t node, const struct fuse_setattr_in *to) {
  struct fuse_attr *is = &nodes[node];
  if (to->valid & FATTR_MODE) is->mode = to->mode;
  if (to->valid & FATTR_UID) is->uid = to->uid;
  if (to->valid & FATTR_GID) is->gid = to->gid;
  if (to->valid & FATTR_SIZE) is->size = to->size;
  if (to->valid & FATTR_MTIME) is->mtime = to->mtime, is->mtimensec = to->mtimensec;
}

/* The size of the reply's body, or an errno below zero. */
static long answer(const struct fuse_in_header *header, void *body, void *out) {
  switch (header->opcode) {
    case FUSE_INIT: {
      const struct fuse_init_in *offer = body;
      uint32_t flags = offer->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | FUSE_HANDLE_KILLPRIV);
      struct fuse_init_out reply = {.major = 7, .minor = 31, .max_readahead = offer->max_readahead, .flags = flags, .max_write = 1 << 20, .max_pages = 256, .max_background = 64, .congestion_threshold = 48, .time_gran = 1};
      memcpy(out, &reply, sizeof reply);
      return sizeof reply;
    }
    case FUSE_LOOKUP: {
      struct name *name = slot_of(header->nodeid, body);
      return name->text ? (long)put_entry(out, name->node) : -ENOENT;
    }
    case FUSE_MKDIR: return make(out, header, (char *)body + sizeof(struct fuse_mkdir_in), S_IFDIR | ((struct fuse_mkdir_in *)body)->mode);
    case FUSE_MKNOD: return make(out, header, (char *)body + sizeof(struct fuse_mknod_in), ((struct fuse_mknod_in *)body)->mode);
    case FUSE_SYMLINK: return make(out, header, body, S_IFLNK | 0777);
    case FUSE_CREATE: {
      size_t size = make(out, header, (char *)body + sizeof(struct fuse_create_in), ((struct fuse_create_in *)body)->mode);
      struct fuse_open_out opened = {.fh = 1, .open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH};
      memcpy((char *)out + size, &opened, sizeof opened);
      return size + sizeof opened;
    }
    case FUSE_SETATTR: change(header->nodeid, body); return put_attributes(out, header->nodeid);
    case FUSE_GETATTR: return put_attributes(out, header->nodeid);
    case FUSE_WRITE: {
      const struct fuse_write_in *write = body;
      struct fuse_write_out reply = {.size = write->size};
      if (nodes[header->nodeid].size < write->offset + write->size) nodes[header->nodeid].size = write->offset + write->size;
      memcpy(out, &reply, sizeof reply);
      return sizeof reply;
    }
    case FUSE_RELEASE: case FUSE_DESTROY: return 0;
    default: return -ENOSYS;
  }
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  char options[100], out[512];
  int fd = open("/dev/fuse", O_RDWR);
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions", fd);
  nodes[1] = (struct fuse_attr){.ino = 1, .mode = S_IFDIR | 0755, .nlink = 1};
  cpu_set_t cpu;
  CPU_ZERO(&cpu);
  CPU_SET(atoi(arguments[2]), &cpu);
  sched_setaffinity(0, sizeof cpu, &cpu);
  if (fd < 0 || mount("floor", arguments[1], "fuse.floor", 0, options) < 0) {
    perror("floor");
    return 1;
  }
  char *request = aligned_alloc(4096, BUFFER);
  while (request) {
    ssize_t length = read(fd, request, BUFFER);
    if (length < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (length < 0) break;
    const struct fuse_in_header *header = (void *)request;
    if (header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET || header->opcode == FUSE_INTERRUPT) continue;
    long size = answer(header, request + sizeof *header, out);
    struct fuse_out_header reply = {.len = sizeof reply + (size > 0 ? (uint32_t)size : 0), .error = size < 0 ? (int)size : 0, .unique = header->unique};
    struct iovec parts[2] = {{&reply, sizeof reply}, {out, size > 0 ? (size_t)size : 0}};
    if (writev(fd, parts, 2) < 0 && errno != ENOENT) break;
  }
  return 0;
}
