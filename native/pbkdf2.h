/* PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2) by sha256.c: nothing but two blocks for each iteration. */
#ifndef BORGFS_PBKDF2_H
#define BORGFS_PBKDF2_H

#include "sha256.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The first 32 bytes of the key. A password of up to 64 bytes, a salt of up to 64, at least one iteration; sha256_is_fast() said yes. It ends soon after another
 * thread made *stop anything but 0; then the key is none.
 */
void pbkdf2_sha256(const uint8_t *password, size_t password_length, const uint8_t *salt, size_t salt_length, uint32_t iterations, const int *stop, uint8_t key[SHA256_HASH]);

#ifdef __cplusplus
}
#endif

#endif
