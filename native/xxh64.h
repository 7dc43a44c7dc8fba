/*
 * XXH64 (seed 0), the checksum of Borg's index and cache files, fed piece by piece. No allocation: the caller owns the state, which
 * may lie at any address and be copied byte by byte.
 */
#ifndef BORGFS_XXH64_H
#define BORGFS_XXH64_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint64_t lanes[4];
  uint64_t total;
  uint8_t rest[32];
  /* Bytes in `rest`. */
  uint64_t held;
} Xxh64;

void xxh64_begin(Xxh64 *state);
void xxh64_update(Xxh64 *state, const uint8_t *data, size_t length);
/* The state stays as it is: more may follow. */
uint64_t xxh64_digest(const Xxh64 *state);

#ifdef __cplusplus
}
#endif

#endif
