/*
 * SHA-256 of sixteen messages at a time: with AVX-512 each message has a lane of 32 bits. Takes the same time whether all lanes are
 * needed or few.
 */
#ifndef BORGFS_SHA256_LANES_H
#define BORGFS_SHA256_LANES_H

#include "sha256.h"

#define SHA256_LANES 16

/* False where the processor or its system lacks AVX-512: then the function below must not be called. */
int sha256_lanes_exist(void);

/*
 * From how many messages on this is faster than sha256_blocks_side_by_side, which exists; more than SHA256_LANES where it never is. Processors
 * differ in it (some do the wide instructions in halves), so it is measured once, in less than a millisecond. Any answer gives the same hashes.
 */
int sha256_lanes_from(void);

/* Takes `blocks` blocks of each message into its state: states[word][lane]. All of `data` can be read, also in lanes that nobody needs. */
void sha256_lanes_blocks(uint32_t states[8][SHA256_LANES], const uint8_t *const data[SHA256_LANES], size_t blocks);

#endif
