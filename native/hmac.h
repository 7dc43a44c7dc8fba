/*
 * HMAC-SHA-256 (RFC 2104) by sha256.c and sha256_lanes.c, where the processor has the instructions for it, many messages at a time;
 * elsewhere by OpenSSL, one after the other.
 */
#ifndef BORGFS_HMAC_H
#define BORGFS_HMAC_H

#include "openssl.h"
#include "sha256_lanes.h"

/* The states after the padded key, which every HMAC of that key begins with: as good as the key itself, and wiped like it. */
struct hmac_key {
  int fast;
  uint32_t inner[8], outer[8];
  /* Where `fast` is false. */
  pointer inner_digest, outer_digest, digest;
};

/* More than there are lanes, so that a lane which gets free has another message at once. */
#define HMAC_MESSAGES 32

/* What of a message is being hashed: its whole blocks, its end with the padding, the outer hash over the inner one. */
enum hmac_part { HMAC_NOTHING, HMAC_BODY, HMAC_END, HMAC_OUTER };

/* A message being hashed. Whoever starts one sets `part` to HMAC_NOTHING, and key, data and length. */
struct hmac_message {
  const struct hmac_key *key;
  const uint8_t *data;
  size_t length;
  enum hmac_part part;
  /* Blocks of the part that are in the state, and all that it has. */
  size_t done, blocks;
  uint8_t end[2 * SHA256_BLOCK];
  uint32_t state[8];
  uint8_t hash[SHA256_HASH];
};

/* `key` has up to 64 bytes. `fast` false keeps to OpenSSL. 1, or 0 for a failure; hmac_key_wipe is called in either case. OpenSSL was loaded. */
int hmac_key_make(struct hmac_key *into, const uint8_t *key, size_t length, int fast);
void hmac_key_wipe(struct hmac_key *key);

/* 1, or 0 for a failure of OpenSSL. One thread at a time may use a key. */
int hmac_hash(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]);

/*
 * Goes on with up to HMAC_MESSAGES messages, of keys that are all fast or all are not, until some are finished and it is time to look for further ones: too few
 * are left to be hashed side by side, or much was hashed. Bit i of the answer: messages[i] is finished, has its hash, and would start anew. 0 for a
 * failure of OpenSSL, or without messages. The first messages come first. `lanes_from`: with how many sha256_lanes.c is used, if that exists; more than SHA256_LANES for never.
 */
uint32_t hmac_advance(struct hmac_message *const messages[], int count, int lanes_from);

#endif
