/*
 * New small files in one directory, from their creation to their close, answered without entering JavaScript: what src/fs/incoming/ and
 * src/fs/fuse/kernel/ answer, byte for byte, for what cp, tar and the like ask of a file that they make. The directory is lent for as long as nothing
 * else happens; whatever is not plain ends the loan, and JavaScript takes over what arrived until then (src/fs/incoming/arrivals.ts).
 */
#ifndef BORGFS_ARRIVALS_H
#define BORGFS_ARRIVALS_H

#include <stddef.h>
#include <stdint.h>

#include "name_hash.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A file that arrived, as JavaScript reads it. */
struct arrival {
  uint32_t name_start, name_length; /* in `names` */
  uint32_t mode, uid, gid, is_open;
  uint32_t data_start, size; /* in `data`; where nothing was written, nowhere */
  int64_t atime_ns, mtime_ns, ctime_ns;
  uint32_t open_flags, unused; /* open(2)'s */
};

struct arrivals {
  /* What is lent: a directory that is not the root of anything and has neither set-group-id nor a default ACL, with its attributes. */
  uint64_t directory;
  uint32_t directory_mode, directory_nlink, directory_uid, directory_gid;
  uint64_t directory_size;
  int64_t directory_atime_ns, directory_mtime_ns, directory_ctime_ns;
  uint64_t generation;
  uint32_t ttl_seconds;
  /* live/: to set what is set already is no change. */
  int is_live;
  /* The inode and the handle of the next file; those after it follow. */
  uint64_t first_node, first_handle;
  /* The clock of staged files, and the host's at that moment. */
  int64_t clock_ns, clock_base_ns, last_ns;
  /* Files, their names, and their contents one after the other, each from a multiple of ARRIVAL_ALIGNMENT on. Memory stays the owner's. */
  struct arrival *files;
  size_t count, room;
  /* The last request made a file: the number of files then. Else 0, which is set before each request. */
  size_t just_made;
  uint8_t *names;
  size_t names_length, names_room;
  uint8_t *data;
  size_t data_length, data_room;
  /* Hashes of all names that the directory had: what is not among them is not there. Open addressing; 0 is an empty place. */
  uint64_t *known;
  size_t known_count, known_room; /* a power of two, more than known_count */
  struct name_key keys[2];
};

enum { ARRIVAL_ALIGNMENT = 16, MAX_ARRIVAL_BYTES = 64 * 1024 };

/* Enters a name that is there. False if there is no room for it. */
int arrivals_know(struct arrivals *a, const uint8_t *name, size_t length);

/* As tree_answer: the bytes of the reply, which takes the place of the request, or 0 (ANSWER_OTHER): not for here. */
long arrivals_answer(struct arrivals *a, uint8_t *slot, size_t length, size_t room);

/* The kernel did not take the reply to the last request: who asked is gone. */
void arrivals_not_taken(struct arrivals *a);

#ifdef __cplusplus
}
#endif
#endif
