/*
 * Sealing and opening of objects (crypto.md §3) in one pass over their bytes: AES-256-CTR and HMAC-SHA-256 of the OpenSSL that is
 * part of Node, slice by slice while the bytes are in the processor's cache, and without memory of its own for each object.
 *
 *   object = type 1 | MAC 32 | nonce 8 (big endian) | ciphertext       MAC over nonce and ciphertext
 */
#ifndef BORGFS_ENVELOPE_H
#define BORGFS_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

#define ENVELOPE_HEADER 41
#define ENVELOPE_HASH 32

#ifdef __cplusplus
extern "C" {
#endif

struct envelope;

/*
 * Keys are copied into OpenSSL's own contexts. `encKey` has 32 bytes or is NULL for a key that only hashes; the others have up to 64.
 * NULL if this process has no OpenSSL with the functions wanted (then JavaScript goes through node:crypto), or out of memory.
 * One thread at a time may use it.
 */
struct envelope *envelope_new(const uint8_t *encKey, const uint8_t *hmacKey, size_t hmacKeyLength, const uint8_t *idKey, size_t idKeyLength);
/* Wipes the keys. */
void envelope_free(struct envelope *envelope);

/* HMAC-SHA-256 with the id key. 1, or 0 for a failure of OpenSSL. */
int envelope_id_hash(struct envelope *envelope, const uint8_t *data, size_t length, uint8_t hash[ENVELOPE_HASH]);

/* Writes ENVELOPE_HEADER + headLength + length bytes to `object`: the payload is `head` followed by `data`. 1, or 0. */
int envelope_seal(struct envelope *envelope, uint8_t type, uint64_t nonce, const uint8_t *head, size_t headLength, const uint8_t *data,
                  size_t length, uint8_t *object);

/*
 * Decrypts `length - ENVELOPE_HEADER` bytes to `payload`. 1, 0 for a failure of OpenSSL, -1 if the MAC is wrong: then `payload` was wiped.
 * The caller has checked the type and that the object is no shorter than its header.
 */
int envelope_open(struct envelope *envelope, const uint8_t *object, size_t length, uint8_t *payload);

#ifdef __cplusplus
}
#endif

#endif
