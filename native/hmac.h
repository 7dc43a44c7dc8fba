/*
 * HMAC-SHA-256 (RFC 2104) by sha256.c, where the processor has the instructions for it, two messages at a time; elsewhere by OpenSSL,
 * one after the other.
 */
#ifndef BORGFS_HMAC_H
#define BORGFS_HMAC_H

#include "openssl.h"
#include "sha256.h"

/* The states after the padded key, which every HMAC of that key begins with: as good as the key itself, and wiped like it. */
struct hmac_key {
  int fast;
  uint32_t inner[8], outer[8];
  /* Where `fast` is false. */
  pointer inner_digest, outer_digest, digest;
};

/* A message being hashed. Whoever starts one sets `done` to 0 and the rest, but for state and hash. */
struct hmac_message {
  const struct hmac_key *key;
  const uint8_t *data;
  size_t length;
  /* Bytes of data that are in the state. */
  size_t done;
  uint32_t state[8];
  uint8_t hash[SHA256_HASH];
};

/* `key` has up to 64 bytes. `fast` false keeps to OpenSSL. 1, or 0 for a failure; hmac_key_wipe is called in either case. OpenSSL was loaded. */
int hmac_key_make(struct hmac_key *into, const uint8_t *key, size_t length, int fast);
void hmac_key_wipe(struct hmac_key *key);

/* 1, or 0 for a failure of OpenSSL. One thread at a time may use a key. */
int hmac_hash(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]);

/*
 * Goes on with one or two messages (the other is NULL) until at least one is finished, which then has its hash and starts anew.
 * Returns 1 for the first, 2 for the second, 3 for both; 0 for a failure of OpenSSL.
 */
int hmac_advance(struct hmac_message *first, struct hmac_message *second);

#endif
