/* BLAKE2b-256 without key parameter (RFC 7693), for little-endian processors: about twice as fast as the libsodium that sodium-native brings. */
#ifndef BORGFS_BLAKE2B_H
#define BORGFS_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

#define BLAKE2B_HASH 32

#ifdef __cplusplus
extern "C" {
#endif

/* The hash of `head` followed by `data`. What it kept of the head, which may be a key, is wiped. */
void blake2b_256(const uint8_t *head, size_t headLength, const uint8_t *data, size_t length, uint8_t hash[BLAKE2B_HASH]);

#ifdef __cplusplus
}
#endif

#endif
