/*
 * References counted down in Borg's chunks index (repository.md §5): buckets of a 32-byte key, refcount, size and csize, 44 bytes,
 * little endian, as they lie in the file. No allocation, no globals.
 */
#ifndef BORGFS_RELEASE_H
#define BORGFS_RELEASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RELEASE_BUCKET_BYTES = 44, RELEASE_REFERENCE_WORDS = 4 };

/* What is to be looked at by the caller: the last reference to a chunk was taken, or nothing refers to it as far as the index knows. */
enum { RELEASE_LAST = 0, RELEASE_UNKNOWN = 1 };

struct released {
  /* Over the references that count, sizes as the index has them. */
  double size, csize;
  /* Pairs of a reference's number and RELEASE_LAST or RELEASE_UNKNOWN, in the order of the references. */
  size_t left;
};

/*
 * Counts each reference down. A reference is four words as items_binding.cc makes them: where its id lies in `stream`, size, csize,
 * and 1 for one of a part, whose sizes count only if `parts`. A count at its limit stays. `left` has room for `references` pairs.
 * Entries that come to 0 stay in their buckets: to remove them is the caller's.
 */
struct released release_references(uint8_t *buckets, size_t bucket_count, const uint8_t *stream, size_t stream_bytes, const uint32_t *words, size_t references, int parts, uint32_t *left);

#ifdef __cplusplus
}
#endif
#endif
