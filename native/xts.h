/*
 * AES-256-XTS for files that are written and read at any place (IEEE 1619, the OpenSSL that is part of Node): units of XTS_UNIT bytes,
 * the tweak being file number and number of the unit, both little endian. Lengths and positions are multiples of 16.
 *
 * A block of zeros on disk is a hole, and stands for zeros: no ciphertext is (but one in 2^128).
 */
#ifndef BORGFS_XTS_H
#define BORGFS_XTS_H

#include <stddef.h>
#include <stdint.h>

#define XTS_KEY 64
#define XTS_UNIT 4096
#define XTS_BLOCK 16

#ifdef __cplusplus
extern "C" {
#endif

struct xts;

/* The key is copied into OpenSSL's contexts. NULL if this process has no OpenSSL with the functions wanted. One thread at a time may use it. */
struct xts *xts_new(const uint8_t key[XTS_KEY]);
/* Wipes the key. */
void xts_free(struct xts *xts);

/* `to` and `from` are apart, or the same. 1, or 0 for a failure of OpenSSL. */
int xts_seal(struct xts *xts, uint64_t file, uint64_t position, const uint8_t *from, size_t length, uint8_t *to);
int xts_open(struct xts *xts, uint64_t file, uint64_t position, const uint8_t *from, size_t length, uint8_t *to);

#ifdef __cplusplus
}
#endif

#endif
