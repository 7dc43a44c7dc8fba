#include "hmac.h"

#include <string.h>

int hmac_key_make(struct hmac_key *into, const uint8_t *key, size_t length, int fast) {
  uint8_t padded[SHA256_BLOCK];
  if (length > SHA256_BLOCK) return 0;
  into->fast = fast;
  int ok = fast || ((into->inner_digest = ssl.digest_new()) && (into->outer_digest = ssl.digest_new()) && (into->digest = ssl.digest_new()));
  for (int part = 0; part < 2 && ok; part++) {
    memset(padded, part ? 0x5c : 0x36, SHA256_BLOCK);
    for (size_t i = 0; i < length; i++) padded[i] ^= key[i];
    if (fast) {
      uint32_t *state = part ? into->outer : into->inner;
      memcpy(state, sha256_start, sizeof sha256_start);
      sha256_blocks(state, padded, 1);
    } else {
      pointer digest = part ? into->outer_digest : into->inner_digest;
      ok = ssl.digest_init(digest, ssl.sha256(), NULL) && ssl.digest_update(digest, padded, SHA256_BLOCK);
    }
  }
  ssl.cleanse(padded, sizeof padded);
  return ok;
}

void hmac_key_wipe(struct hmac_key *key) {
  if (key->inner_digest) ssl.digest_free(key->inner_digest);
  if (key->outer_digest) ssl.digest_free(key->outer_digest);
  if (key->digest) ssl.digest_free(key->digest);
  ssl.cleanse(key, sizeof *key);
}

/* What is left of a message, less than a block, and then the outer hash over the inner one. */
static void finish(const struct hmac_key *key, uint32_t state[8], const uint8_t *rest, size_t length, uint8_t hash[SHA256_HASH]) {
  uint8_t end[2 * SHA256_BLOCK], inner[SHA256_HASH];
  /* The padded key was a block of its own. */
  sha256_blocks(state, end, sha256_end(end, rest, SHA256_BLOCK + length));
  sha256_hash(state, inner);
  memcpy(state, key->outer, sizeof key->outer);
  sha256_blocks(state, end, sha256_end(end, inner, SHA256_BLOCK + SHA256_HASH));
  sha256_hash(state, hash);
}

static int hash_slowly(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]) {
  uint8_t inner[SHA256_HASH];
  return ssl.digest_copy(key->digest, key->inner_digest) && ssl.digest_update(key->digest, data, length) && ssl.digest_final(key->digest, inner, NULL) &&
         ssl.digest_copy(key->digest, key->outer_digest) && ssl.digest_update(key->digest, inner, sizeof inner) && ssl.digest_final(key->digest, hash, NULL);
}

int hmac_hash(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]) {
  if (!key->fast) return hash_slowly(key, data, length, hash);
  uint32_t state[8];
  memcpy(state, key->inner, sizeof state);
  sha256_blocks(state, data, length / SHA256_BLOCK);
  finish(key, state, data + length / SHA256_BLOCK * SHA256_BLOCK, length, hash);
  return 1;
}

/* Whole blocks that are not in the state. */
static size_t blocks_of(struct hmac_message *message) {
  if (message->done == 0) memcpy(message->state, message->key->inner, sizeof message->state);
  return (message->length - message->done) / SHA256_BLOCK;
}

static int finished(struct hmac_message *message, size_t blocks) {
  message->done += blocks * SHA256_BLOCK;
  if (message->length - message->done >= SHA256_BLOCK) return 0;
  finish(message->key, message->state, message->data + message->done, message->length, message->hash);
  message->done = 0;
  return 1;
}

int hmac_advance(struct hmac_message *first, struct hmac_message *second) {
  if (!first) return second ? hmac_advance(second, NULL) << 1 : 0;
  if (!first->key->fast) return hash_slowly(first->key, first->data, first->length, first->hash);
  size_t blocks = blocks_of(first);
  if (!second) {
    sha256_blocks(first->state, first->data + first->done, blocks);
    return finished(first, blocks);
  }
  size_t others = blocks_of(second);
  if (others < blocks) blocks = others;
  sha256_blocks_of_two(first->state, first->data + first->done, second->state, second->data + second->done, blocks);
  int which = finished(first, blocks);
  return which | finished(second, blocks) << 1;
}
