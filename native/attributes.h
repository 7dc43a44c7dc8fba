/*
 * Metadata of one filesystem object: a row of statx values, and its xattrs packed into one block.
 */
#ifndef BORGFS_ATTRIBUTES_H
#define BORGFS_ATTRIBUTES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Fields of a row, in the order of statField in src/engine/native.ts. */
enum { ATTRIBUTE_ROW = 14, ATTRIBUTE_FS_FLAGS = 12, ATTRIBUTE_ERROR = 13 };
/* WANT_NAMES_ONLY: of a directory, without looking at what they are. */
enum { WANT_XATTRS = 1, WANT_ACLS = 2, WANT_FS_FLAGS = 4, WANT_NAMES_ONLY = 8 };

/* A block that grows; free(data) is the owner's duty. */
struct packed {
  uint8_t *data;
  size_t length;
  size_t capacity;
};

/*
 * Fills row for the object `name` below dir_fd (not following a symlink), or for dir_fd itself if name is "". Returns 0
 * or an errno, which is in row[ATTRIBUTE_ERROR] as well.
 */
int attributes_stat(int dir_fd, const char *name, int want, int64_t *row);

/*
 * Appends (u16le name length, name, u32le value length, value)* of the object's xattrs. path is resolved without following
 * a final symlink. ACLs (system.posix_acl_*) are taken iff WANT_ACLS, others iff WANT_XATTRS.
 * What may not be read is left out.
 * Returns 0 or an errno; file systems without xattrs give 0 and nothing.
 */
int attributes_xattrs(const char *path, int want, struct packed *out);

#ifdef __cplusplus
}
#endif
#endif
