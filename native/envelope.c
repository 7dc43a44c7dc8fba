#include "envelope.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Fits the first-level caches together with what is made of it. */
#define SLICE (16 * 1024)
#define BLOCK 64

/*
 * OpenSSL's functions are looked up in the running process: Node exports them when it was built with its own copy, and the system's
 * library is loaded when it was not. Nothing has to be linked or installed.
 */
typedef void *pointer;
static struct {
  pointer (*cipher_new)(void);
  void (*cipher_free)(pointer);
  const void *(*aes_256_ctr)(void);
  int (*encrypt_init)(pointer, const void *, pointer, const uint8_t *, const uint8_t *);
  int (*encrypt_update)(pointer, uint8_t *, int *, const uint8_t *, int);
  pointer (*digest_new)(void);
  void (*digest_free)(pointer);
  const void *(*sha256)(void);
  int (*digest_init)(pointer, const void *, pointer);
  int (*digest_update)(pointer, const void *, size_t);
  int (*digest_final)(pointer, uint8_t *, unsigned *);
  int (*digest_copy)(pointer, const void *);
  void (*cleanse)(void *, size_t);
  int (*memcmp)(const void *, const void *, size_t);
} ssl;

static int find(void *into, const char *name) {
  void *symbol = dlsym(RTLD_DEFAULT, name);
  memcpy(into, &symbol, sizeof symbol);
  return symbol != NULL;
}

/* Several threads may do this at once: they store the same values. */
static int load(void) {
  return find(&ssl.cipher_new, "EVP_CIPHER_CTX_new") && find(&ssl.cipher_free, "EVP_CIPHER_CTX_free") && find(&ssl.aes_256_ctr, "EVP_aes_256_ctr") &&
         find(&ssl.encrypt_init, "EVP_EncryptInit_ex") && find(&ssl.encrypt_update, "EVP_EncryptUpdate") && find(&ssl.digest_new, "EVP_MD_CTX_new") &&
         find(&ssl.digest_free, "EVP_MD_CTX_free") && find(&ssl.sha256, "EVP_sha256") && find(&ssl.digest_init, "EVP_DigestInit_ex") &&
         find(&ssl.digest_update, "EVP_DigestUpdate") && find(&ssl.digest_final, "EVP_DigestFinal_ex") && find(&ssl.digest_copy, "EVP_MD_CTX_copy_ex") &&
         find(&ssl.cleanse, "OPENSSL_cleanse") && find(&ssl.memcmp, "CRYPTO_memcmp");
}

/* SHA-256 states after the padded key: what every HMAC of that key begins with. */
struct hmac {
  pointer inner, outer;
};

struct envelope {
  pointer cipher, digest;
  struct hmac mac, id;
};

static int hmac_begin(struct hmac *hmac, const uint8_t *key, size_t length) {
  uint8_t padded[BLOCK];
  if (length > BLOCK) return 0;
  int ok = (hmac->inner = ssl.digest_new()) != NULL && (hmac->outer = ssl.digest_new()) != NULL;
  for (int part = 0; part < 2 && ok; part++) {
    memset(padded, part ? 0x5c : 0x36, BLOCK);
    for (size_t i = 0; i < length; i++) padded[i] ^= key[i];
    pointer state = part ? hmac->outer : hmac->inner;
    ok = ssl.digest_init(state, ssl.sha256(), NULL) && ssl.digest_update(state, padded, BLOCK);
  }
  ssl.cleanse(padded, BLOCK);
  return ok;
}

static void hmac_free(struct hmac *hmac) {
  if (hmac->inner) ssl.digest_free(hmac->inner);
  if (hmac->outer) ssl.digest_free(hmac->outer);
}

/* The inner hash is in envelope->digest. */
static int hmac_end(struct envelope *envelope, const struct hmac *hmac, uint8_t hash[ENVELOPE_HASH]) {
  uint8_t inner[ENVELOPE_HASH];
  return ssl.digest_final(envelope->digest, inner, NULL) && ssl.digest_copy(envelope->digest, hmac->outer) &&
         ssl.digest_update(envelope->digest, inner, sizeof inner) && ssl.digest_final(envelope->digest, hash, NULL);
}

struct envelope *envelope_new(const uint8_t *encKey, const uint8_t *hmacKey, size_t hmacKeyLength, const uint8_t *idKey, size_t idKeyLength) {
  if (!load()) return NULL;
  struct envelope *envelope = calloc(1, sizeof *envelope);
  if (!envelope) return NULL;
  int ok = (envelope->digest = ssl.digest_new()) != NULL && hmac_begin(&envelope->id, idKey, idKeyLength);
  if (ok && encKey) {
    ok = (envelope->cipher = ssl.cipher_new()) != NULL && ssl.encrypt_init(envelope->cipher, ssl.aes_256_ctr(), NULL, encKey, NULL) &&
         hmac_begin(&envelope->mac, hmacKey, hmacKeyLength);
  }
  if (ok) return envelope;
  envelope_free(envelope);
  return NULL;
}

void envelope_free(struct envelope *envelope) {
  if (envelope->cipher) ssl.cipher_free(envelope->cipher);
  if (envelope->digest) ssl.digest_free(envelope->digest);
  hmac_free(&envelope->mac);
  hmac_free(&envelope->id);
  free(envelope);
}

int envelope_id_hash(struct envelope *envelope, const uint8_t *data, size_t length, uint8_t hash[ENVELOPE_HASH]) {
  return ssl.digest_copy(envelope->digest, envelope->id.inner) && ssl.digest_update(envelope->digest, data, length) &&
         hmac_end(envelope, &envelope->id, hash);
}

static int begin(struct envelope *envelope, const uint8_t nonce[8]) {
  uint8_t counter[16] = {0};
  memcpy(counter + 8, nonce, 8);
  return ssl.encrypt_init(envelope->cipher, NULL, NULL, NULL, counter) && ssl.digest_copy(envelope->digest, envelope->mac.inner) &&
         ssl.digest_update(envelope->digest, nonce, 8);
}

static int crypt(struct envelope *envelope, uint8_t *to, const uint8_t *from, size_t length) {
  int written;
  return ssl.encrypt_update(envelope->cipher, to, &written, from, (int)length) && (size_t)written == length;
}

int envelope_seal(struct envelope *envelope, uint8_t type, uint64_t nonce, const uint8_t *head, size_t headLength, const uint8_t *data,
                  size_t length, uint8_t *object) {
  if (!envelope->cipher || headLength > SLICE) return 0;
  object[0] = type;
  for (int i = 0; i < 8; i++) object[33 + i] = (uint8_t)(nonce >> (56 - 8 * i));
  if (!begin(envelope, object + 33)) return 0;
  uint8_t *to = object + ENVELOPE_HEADER;
  if (headLength && !(crypt(envelope, to, head, headLength) && ssl.digest_update(envelope->digest, to, headLength))) return 0;
  to += headLength;
  for (size_t at = 0; at < length; at += SLICE) {
    size_t some = length - at < SLICE ? length - at : SLICE;
    if (!crypt(envelope, to + at, data + at, some) || !ssl.digest_update(envelope->digest, to + at, some)) return 0;
  }
  return hmac_end(envelope, &envelope->mac, object + 1);
}

int envelope_open(struct envelope *envelope, const uint8_t *object, size_t length, uint8_t *payload) {
  if (!envelope->cipher) return 0;
  const uint8_t *from = object + ENVELOPE_HEADER;
  length -= ENVELOPE_HEADER;
  if (!begin(envelope, object + 33)) return 0;
  for (size_t at = 0; at < length; at += SLICE) {
    size_t some = length - at < SLICE ? length - at : SLICE;
    if (!ssl.digest_update(envelope->digest, from + at, some) || !crypt(envelope, payload + at, from + at, some)) return 0;
  }
  uint8_t mac[ENVELOPE_HASH];
  if (!hmac_end(envelope, &envelope->mac, mac)) return 0;
  if (ssl.memcmp(mac, object + 1, sizeof mac) == 0) return 1;
  /* Nothing that is not authentic leaves this function. */
  ssl.cleanse(payload, length);
  return -1;
}
