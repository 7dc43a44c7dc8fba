/*
 * The compression function of SHA-256 (FIPS 180-4 §6.2) with the processor's SHA instructions, for one message and for up to four at
 * a time: each instruction waits for the one before it, and other messages fill these waits, so that four cost little more than two
 * one after the other. For many at a time see sha256_lanes.h.
 */
#ifndef BORGFS_SHA256_H
#define BORGFS_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BLOCK 64
#define SHA256_HASH 32
#define SHA256_SIDE_BY_SIDE 4

#ifdef __cplusplus
extern "C" {
#endif

/* What a message begins with. */
extern const uint32_t sha256_start[8];
extern const uint32_t sha256_constants[64];

/* False where the processor lacks the instructions: then the functions below must not be called. */
int sha256_is_fast(void);

/* Takes `blocks` blocks of `data` into the state. */
void sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks);
/* The same for 1 to SHA256_SIDE_BY_SIDE messages that have nothing to do with each other. */
void sha256_blocks_side_by_side(uint32_t *const states[], const uint8_t *const data[], int count, size_t blocks);

/*
 * The last one or two blocks of a message that has `length` bytes in all: its last length % 64 bytes `rest`, and the padding.
 * Returns their number.
 */
size_t sha256_end(uint8_t into[2 * SHA256_BLOCK], const uint8_t *rest, uint64_t length);
/* The state as the hash is written. */
void sha256_hash(const uint32_t state[8], uint8_t hash[SHA256_HASH]);

#ifdef __cplusplus
}
#endif

#endif
