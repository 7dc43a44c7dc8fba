#include "pbkdf2.h"

#include <string.h>

static void padded_key(uint32_t state[8], const uint8_t *password, size_t length, uint8_t pad) {
  uint8_t block[SHA256_BLOCK];
  memset(block, pad, sizeof block);
  for (size_t i = 0; i < length; i++) block[i] ^= password[i];
  memcpy(state, sha256_start, sizeof sha256_start);
  sha256_blocks(state, block, 1);
  explicit_bzero(block, sizeof block);
}

/* Iterations, of less than a microsecond each. */
enum { BETWEEN_LOOKS = 1024 };

void pbkdf2_sha256(const uint8_t *password, size_t password_length, const uint8_t *salt, size_t salt_length, uint32_t iterations, const int *stop, uint8_t key[SHA256_HASH]) {
  uint32_t inner[8], outer[8], state[8], sum[8] = {0};
  uint8_t message[2 * SHA256_BLOCK] = {0}, end[2 * SHA256_BLOCK], block[SHA256_BLOCK] = {0};
  padded_key(inner, password, password_length, 0x36);
  padded_key(outer, password, password_length, 0x5c);

  /* The first message is the salt and the number of the key's block, 1; all others, and the outer ones, are a hash with the padding that never changes. */
  memcpy(message, salt, salt_length);
  message[salt_length + 3] = 1;
  size_t length = salt_length + 4, whole = length / SHA256_BLOCK;
  memcpy(state, inner, sizeof state);
  sha256_blocks(state, message, whole);
  sha256_blocks(state, end, sha256_end(end, message + whole * SHA256_BLOCK, SHA256_BLOCK + length));
  sha256_end(end, block, SHA256_BLOCK + SHA256_HASH);
  memcpy(block, end, sizeof block);
  for (uint32_t left = iterations;;) {
    sha256_hash(state, block);
    memcpy(state, outer, sizeof state);
    sha256_blocks(state, block, 1);
    for (int i = 0; i < 8; i++) sum[i] ^= state[i];
    if (--left == 0 || (left % BETWEEN_LOOKS == 0 && __atomic_load_n(stop, __ATOMIC_RELAXED))) break;
    sha256_hash(state, block);
    memcpy(state, inner, sizeof state);
    sha256_blocks(state, block, 1);
  }
  sha256_hash(sum, key);

  explicit_bzero(inner, sizeof inner);
  explicit_bzero(outer, sizeof outer);
  explicit_bzero(state, sizeof state);
  explicit_bzero(sum, sizeof sum);
  explicit_bzero(block, sizeof block);
}
