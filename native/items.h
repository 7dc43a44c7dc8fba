/*
 * Reading the item stream of an archive (archive.md §1, §4): one item of old MessagePack as spans of the bytes it lies in. No
 * allocation, no globals; every byte is taken for hostile.
 */
#ifndef BORGFS_ITEMS_H
#define BORGFS_ITEMS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct span {
  const uint8_t *data;
  size_t length;
};

/* Where the next value stands. */
struct msgpack {
  const uint8_t *at, *end;
};

enum { ITEM_OK = 0, ITEM_TRUNCATED = -1, ITEM_INVALID = -2 };

/* `has` bits. */
enum {
  ITEM_PATH = 1, ITEM_ATIME = 2, ITEM_CTIME = 4, ITEM_SIZE = 8, ITEM_SOURCE = 16, ITEM_PART = 32, ITEM_DAMAGED = 64, ITEM_CHUNKS = 128,
  ITEM_USER = 256, ITEM_GROUP = 512, ITEM_ACL_ACCESS = 1024, ITEM_ACL_DEFAULT = 2048, ITEM_XATTRS = 4096
};

struct item {
  unsigned has;
  struct span path, user, group, source, acl_access, acl_default;
  uint32_t mode, uid, gid, rdev, bsdflags;
  int64_t mtime_ns, atime_ns, ctime_ns; /* clamped to 64 bits */
  double size;
  /* Values still packed: the entries of `chunks` and `xattrs`, behind their headers. */
  struct msgpack chunks, xattrs;
  size_t chunk_count, xattr_count;
};

/* One item; `cursor` is behind it only if ITEM_OK is returned. */
int item_read(struct msgpack *cursor, struct item *item);

/*
 * One item of which only the references matter, whatever else is wrong with it: its chunk list as in struct item, of no entries where
 * there is none (`listed` 0), and whether it has the key `part`. `cursor` is behind it only if ITEM_OK is returned.
 */
int item_read_references(struct msgpack *cursor, struct msgpack *chunks, size_t *count, int *listed, int *part);

/* The next entry of item.chunks; it was checked when the item was read. */
void item_chunk(struct msgpack *chunks, const uint8_t **id, uint32_t *size, uint32_t *csize);

/* The next entry of item.xattrs; an empty value where there is none. */
void item_xattr(struct msgpack *xattrs, struct span *name, struct span *value);

#ifdef __cplusplus
}
#endif
#endif
