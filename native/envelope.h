/*
 * Sealing and opening of objects (crypto.md §3): AES-256-CTR of the OpenSSL that is part of Node, HMAC-SHA-256 of hmac.c, without
 * memory of its own for each object.
 *
 *   object = type 1 | MAC 32 | nonce 8 (big endian) | ciphertext       MAC over nonce and ciphertext
 */
#ifndef BORGFS_ENVELOPE_H
#define BORGFS_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

#define ENVELOPE_MAC 1
#define ENVELOPE_NONCE 33
#define ENVELOPE_HEADER 41
#define ENVELOPE_HASH 32
#define ENVELOPE_MESSAGES 32

#ifdef __cplusplus
extern "C" {
#endif

struct envelope;

/*
 * How hashes are made: by OpenSSL, as a processor without SHA instructions does; with these, up to four at a time; also in the lanes of sha256_lanes.c,
 * where these are faster; always in those, if they exist. The first, second and fourth are for tests.
 */
enum envelope_hashing { ENVELOPE_BY_OPENSSL, ENVELOPE_SIDE_BY_SIDE, ENVELOPE_FASTEST, ENVELOPE_IN_LANES };

/*
 * Keys are copied. `encKey` has 32 bytes or is NULL for a key that only hashes; the others have up to 64. NULL if this process has no OpenSSL with the functions
 * wanted (then JavaScript goes through node:crypto), or out of memory. One thread at a time may use it.
 */
struct envelope *envelope_new(const uint8_t *encKey, const uint8_t *hmacKey, size_t hmacKeyLength, const uint8_t *idKey, size_t idKeyLength,
                              enum envelope_hashing hashing);
/* Wipes the keys. */
void envelope_free(struct envelope *envelope);

/* HMAC-SHA-256 with the id key. 1, or 0 for a failure of OpenSSL. */
int envelope_id_hash(struct envelope *envelope, const uint8_t *data, size_t length, uint8_t hash[ENVELOPE_HASH]);
/* The MAC that an object should have, which is no shorter than its header. 1, or 0: a failure of OpenSSL, or a key that only hashes. */
int envelope_mac(struct envelope *envelope, const uint8_t *object, size_t length, uint8_t mac[ENVELOPE_HASH]);

/*
 * Many hashes side by side, which goes faster than one after the other: each message has a slot, below ENVELOPE_MESSAGES, and is given again and again until it
 * is finished.
 */
enum envelope_message { ENVELOPE_ID_OF_PLAINTEXT, ENVELOPE_MAC_OF_OBJECT };
/* All slots begin anew, whatever was in them. */
void envelope_messages_clear(struct envelope *envelope);
/* What the slot is to hash. 0 if that cannot be: a MAC of a key that only hashes, of an object shorter than its header, or another message than the one under way. */
int envelope_message(struct envelope *envelope, int slot, enum envelope_message kind, const uint8_t *data, size_t length);
/*
 * Goes on with the messages of these slots, the first ones first, until at least one is finished. Bit i: the message of slots[i] is, its hash is in hashes[i], and
 * the slot is free. 0 for a failure of OpenSSL, or if there is nothing to be hashed.
 */
uint32_t envelope_run(struct envelope *envelope, const uint8_t *slots, int count, uint8_t hashes[ENVELOPE_MESSAGES][ENVELOPE_HASH]);

/*
 * Writes ENVELOPE_HEADER + headLength + length bytes to `object`, all but the MAC: the payload is `head` followed by `data`. 1, or 0
 * for a failure of OpenSSL or a key that only hashes.
 */
int envelope_encrypt(struct envelope *envelope, uint8_t type, uint64_t nonce, const uint8_t *head, size_t headLength, const uint8_t *data,
                     size_t length, uint8_t *object);

/*
 * Decrypts `length - ENVELOPE_HEADER` bytes to `payload`. 1, 0 for a failure of OpenSSL or a key that only hashes, -1 if the object's
 * MAC is not `mac`: then nothing was decrypted. The caller has checked the type and that the object is no shorter than its header.
 */
int envelope_decrypt(struct envelope *envelope, const uint8_t *object, size_t length, const uint8_t mac[ENVELOPE_HASH], uint8_t *payload);

#ifdef __cplusplus
}
#endif

#endif
