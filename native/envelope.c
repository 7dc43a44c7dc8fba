#include "envelope.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "hmac.h"

struct envelope {
  pointer cipher;
  struct hmac_key mac, id;
  int lanes_from;
  struct hmac_message messages[ENVELOPE_MESSAGES];
};

_Static_assert(ENVELOPE_MESSAGES == HMAC_MESSAGES, "as many at a time as hmac.c takes");

struct envelope *envelope_new(const uint8_t *encKey, const uint8_t *hmacKey, size_t hmacKeyLength, const uint8_t *idKey, size_t idKeyLength,
                              enum envelope_hashing hashing) {
  if (!openssl_load()) return NULL;
  struct envelope *envelope = calloc(1, sizeof *envelope);
  if (!envelope) return NULL;
  int fast = hashing != ENVELOPE_BY_OPENSSL && sha256_is_fast();
  envelope->lanes_from = SHA256_LANES + 1;
  if (fast && hashing == ENVELOPE_FASTEST) envelope->lanes_from = sha256_lanes_from();
  if (fast && hashing == ENVELOPE_IN_LANES && sha256_lanes_exist()) envelope->lanes_from = 1;
  int ok = hmac_key_make(&envelope->id, idKey, idKeyLength, fast);
  if (ok && encKey) {
    ok = (envelope->cipher = ssl.cipher_new()) != NULL && ssl.encrypt_init(envelope->cipher, ssl.aes_256_ctr(), NULL, encKey, NULL) &&
         hmac_key_make(&envelope->mac, hmacKey, hmacKeyLength, fast);
  }
  if (ok) return envelope;
  envelope_free(envelope);
  return NULL;
}

void envelope_free(struct envelope *envelope) {
  if (envelope->cipher) ssl.cipher_free(envelope->cipher);
  hmac_key_wipe(&envelope->mac);
  hmac_key_wipe(&envelope->id);
  ssl.cleanse(envelope, sizeof *envelope);
  free(envelope);
}

int envelope_id_hash(struct envelope *envelope, const uint8_t *data, size_t length, uint8_t hash[ENVELOPE_HASH]) {
  return hmac_hash(&envelope->id, data, length, hash);
}

int envelope_mac(struct envelope *envelope, const uint8_t *object, size_t length, uint8_t mac[ENVELOPE_HASH]) {
  return envelope->cipher && hmac_hash(&envelope->mac, object + ENVELOPE_NONCE, length - ENVELOPE_NONCE, mac);
}

void envelope_messages_clear(struct envelope *envelope) {
  for (int slot = 0; slot < ENVELOPE_MESSAGES; slot++) envelope->messages[slot].part = HMAC_NOTHING;
}

int envelope_message(struct envelope *envelope, int slot, enum envelope_message kind, const uint8_t *data, size_t length) {
  struct hmac_message *into = &envelope->messages[slot];
  if (kind == ENVELOPE_MAC_OF_OBJECT) {
    if (!envelope->cipher || length < ENVELOPE_HEADER) return 0;
    data += ENVELOPE_NONCE;
    length -= ENVELOPE_NONCE;
  }
  const struct hmac_key *key = kind == ENVELOPE_MAC_OF_OBJECT ? &envelope->mac : &envelope->id;
  if (into->part != HMAC_NOTHING && (length != into->length || key != into->key)) return 0;
  into->key = key;
  into->data = data;
  into->length = length;
  return 1;
}

uint32_t envelope_run(struct envelope *envelope, const uint8_t *slots, int count, uint8_t hashes[ENVELOPE_MESSAGES][ENVELOPE_HASH]) {
  struct hmac_message *messages[ENVELOPE_MESSAGES] = {NULL};
  for (int i = 0; i < count; i++) messages[i] = &envelope->messages[slots[i]];
  uint32_t finished = hmac_advance(messages, count, envelope->lanes_from);
  for (int i = 0; i < count; i++) {
    if (finished & (1u << i)) memcpy(hashes[i], messages[i]->hash, ENVELOPE_HASH);
  }
  return finished;
}

static int begin(struct envelope *envelope, const uint8_t nonce[8]) {
  uint8_t counter[16] = {0};
  memcpy(counter + 8, nonce, 8);
  return envelope->cipher && ssl.encrypt_init(envelope->cipher, NULL, NULL, NULL, counter);
}

static int crypt(struct envelope *envelope, uint8_t *to, const uint8_t *from, size_t length) {
  int written = 0;
  return length <= INT_MAX && (length == 0 || ssl.encrypt_update(envelope->cipher, to, &written, from, (int)length)) && (size_t)written == length;
}

int envelope_encrypt(struct envelope *envelope, uint8_t type, uint64_t nonce, const uint8_t *head, size_t headLength, const uint8_t *data,
                     size_t length, uint8_t *object) {
  object[0] = type;
  for (int i = 0; i < 8; i++) object[ENVELOPE_NONCE + i] = (uint8_t)(nonce >> (56 - 8 * i));
  uint8_t *to = object + ENVELOPE_HEADER;
  return begin(envelope, object + ENVELOPE_NONCE) && crypt(envelope, to, head, headLength) && crypt(envelope, to + headLength, data, length);
}

int envelope_decrypt(struct envelope *envelope, const uint8_t *object, size_t length, const uint8_t mac[ENVELOPE_HASH], uint8_t *payload) {
  if (ssl.memcmp(mac, object + ENVELOPE_MAC, ENVELOPE_HASH) != 0) return -1;
  return begin(envelope, object + ENVELOPE_NONCE) && crypt(envelope, payload, object + ENVELOPE_HEADER, length - ENVELOPE_HEADER);
}
