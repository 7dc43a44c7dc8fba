/*
 * The chunk references of an item stream (archive.md §4): one msgpack map per item, without separators. Nothing is built of
 * them but the list of references. Bytes are not trusted: every length is held against what is there.
 */
#ifndef BORGFS_ITEMS_H
#define BORGFS_ITEMS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ITEMS_ALL = 0, ITEMS_CUT = 1, ITEMS_MALFORMED = 2, ITEMS_NO_MEMORY = 3 };

/* Four words for each reference: where its id lies, size, csize, 1 if it belongs to an item with the key `part`. */
struct item_references {
  uint32_t *words;
  size_t count, capacity;
  uint32_t files, parts; /* items with chunks */
};

/*
 * Reads whole items from the start of data[0, length), which is below 4 GiB, and sets `consumed` to where the last of them ends.
 * ITEMS_CUT: what follows is the beginning of an item. ITEMS_MALFORMED: what follows is none. References are appended to
 * `into`, which begins zeroed; its words are the caller's to free(), whatever is returned.
 */
int items_references(const uint8_t *data, size_t length, size_t *consumed, struct item_references *into);

#ifdef __cplusplus
}
#endif

#endif
