/*
 * The buzhash chunker of Borg 1.x (chunker.md §3, §4). No allocation, no globals.
 */
#ifndef BORGFS_CHUNKER_H
#define BORGFS_CHUNKER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a chunker was asked to do. table: 256 entries already XORed with the seed. */
struct chunker_params {
  const uint32_t *table;
  /* At least 1: a chunk has bytes. */
  size_t min_size;
  size_t max_size;
  uint32_t mask;
  size_t window;
};

/* Hash of a whole window. */
uint32_t chunker_hash(const uint32_t *table, const uint8_t *data, size_t length);

/* The hash after the window of `length` bytes moved on by one. */
uint32_t chunker_roll(const uint32_t *table, uint32_t sum, uint8_t remove, uint8_t add, size_t length);

/*
 * Length of the chunk that starts at data, of which `length` bytes are at hand; `last` says that nothing follows them.
 * 0: more data could change the answer (never when last is true and length > 0).
 */
size_t chunker_next(const struct chunker_params *params, const uint8_t *data, size_t length, int last);

/* 1 if all bytes are zero. */
int chunker_is_zero(const uint8_t *data, size_t length);

#ifdef __cplusplus
}
#endif
#endif
