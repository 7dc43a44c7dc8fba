/*
 * Deleting many objects at once: buckets of Borg's hash tables (repository.md §5: a 32-byte key and `values` uint32 words, of which the
 * first also marks empty and deleted ones), DELETE entries and the lengths of the entries that they are about (§3). No allocation, no globals.
 */
#ifndef BORGFS_DELETION_H
#define BORGFS_DELETION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DELETION_ID_BYTES = 32, DELETION_ENTRY_BYTES = 41 };

struct bucket_table {
  uint8_t *buckets;
  size_t count, values;
};

/* Marks the bucket of each id deleted, after its words went to `words`; an id without one gets 0xffffffff as its first word. Returns how many had one. */
size_t deletion_take_out(struct bucket_table table, const uint8_t *ids, size_t count, uint32_t *words);

/*
 * Enters ids with one word each into a table of one. One that is there already is left as it is, and its number goes to `known`, which has
 * room for all. There must be more empty buckets than ids. Returns the number of the known; `emptied` is how many buckets were empty before.
 */
size_t deletion_enter(struct bucket_table table, const uint8_t *ids, size_t count, const uint32_t *words, size_t word_stride, uint32_t *known, size_t *emptied);

/*
 * What the shadow index is in hints (§5), MessagePack: for each entry of a table of one word, whose word is below `limit`, the id as a raw and an
 * array of that word. `packed` has room for DELETION_PACKED_BYTES for each of the table's entries. Returns bytes; `entries` counts them.
 */
enum { DELETION_PACKED_BYTES = 41 };
size_t deletion_pack(struct bucket_table table, uint32_t limit, uint8_t *packed, size_t *entries);
/* The inverse for the entries at the start that are just so, at most `count`: ids and words. Returns how many; `bytes` is what they take. */
size_t deletion_unpack(const uint8_t *packed, size_t length, size_t count, uint8_t *ids, uint32_t *words, size_t *bytes);

/* The DELETE entries of ids, one behind the other. */
void deletion_frame(const uint8_t *ids, size_t count, uint8_t *entries);

/*
 * Lengths of the entries at offsets[0], offsets[stride], … of a file, from their headers. Returns how many could be read before the file
 * ended or an error came, which then is in `error`.
 */
size_t deletion_lengths(int fd, const uint32_t *offsets, size_t stride, size_t count, uint32_t *lengths, int *error);

#ifdef __cplusplus
}
#endif
#endif
