/*
 * The kernel's questions about an archive's names and attributes, answered from the tree's columns: what src/fs/archive-files.ts and
 * src/fs/fuse/kernel/ answer, byte for byte, without entering JavaScript. Whatever is not plain is left to them.
 */
#ifndef BORGFS_ANSWERS_H
#define BORGFS_ANSWERS_H

#include "name_hash.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A column and the number of its values. Memory stays the owner's. */
struct column {
  const void *values;
  size_t count;
};

/* See src/fs/tree-columns.ts, which has the meaning of each. */
struct shown_tree {
  /* Inode numbers of the root and of the directory above it. */
  uint64_t base, above;
  size_t rows;
  struct column parent, name_start, first, count, next_sibling, access, flags, size, mtime, atime, ctime, names, blobs, slots, xattr_row, linked_row, linked_count;
  struct column modes, uids, gids;
  struct name_key key;
  /* access is 16 bits wide. */
  int narrow_access;
  int64_t supplied_ns, root_ns;
  /* How long the kernel keeps what it is told. */
  uint32_t ttl_seconds;
  /* Of handles (answers.ts); the mount's own root has 0. */
  uint64_t generation;
  /* No file has an ACL or a security label. */
  int bare;
  /* HandedFiles: a byte for each row, and how many handles of theirs are out. */
  const uint8_t *handed;
  double *handed_opens;
  /* Entries of it that the kernel was given and did not give back: by those answers, and by its owner. */
  double *references;
};

/* ANSWER_OTHER: not for here. ANSWER_NONE: done, and the kernel waits for nothing. Else the bytes of the reply. */
enum { ANSWER_OTHER = 0, ANSWER_NONE = -1 };

/* ANSWER_NO_MARKS: who asks is told that ACLs and labels are not supported, where nothing has any. ANSWER_NAMES_ONLY: listings give attributes of directories alone. */
enum { ANSWER_NO_MARKS = 1, ANSWER_NAMES_ONLY = 2 };

/*
 * Answers a request about a node of the tree. The reply may take the place of the request. *names: how many names of other things than
 * directories were given without attributes, or found.
 */
long tree_answer(const struct shown_tree *tree, const uint8_t *request, size_t length, uint8_t *reply, size_t room, unsigned manner, size_t *names);

/* Whether the request asks for the ACL or the label of something. */
int asks_for_marks(const uint8_t *request, size_t length);

/* Whether the directory of this node has so few entries that it does not matter how it is listed. */
int tree_is_small(const struct shown_tree *tree, uint64_t node);

#ifdef __cplusplus
}
#endif
#endif
