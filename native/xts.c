#include "xts.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* As in envelope.c: looked up in the running process. */
typedef void *pointer;
static struct {
  pointer (*cipher_new)(void);
  void (*cipher_free)(pointer);
  const void *(*aes_256_xts)(void);
  int (*init)(pointer, const void *, pointer, const uint8_t *, const uint8_t *, int);
  int (*update)(pointer, uint8_t *, int *, const uint8_t *, int);
} ssl;

static int find(void *into, const char *name) {
  void *symbol = dlsym(RTLD_DEFAULT, name);
  memcpy(into, &symbol, sizeof symbol);
  return symbol != NULL;
}

static int load(void) {
  return find(&ssl.cipher_new, "EVP_CIPHER_CTX_new") && find(&ssl.cipher_free, "EVP_CIPHER_CTX_free") && find(&ssl.aes_256_xts, "EVP_aes_256_xts") &&
         find(&ssl.init, "EVP_CipherInit_ex") && find(&ssl.update, "EVP_CipherUpdate");
}

struct xts {
  pointer seal, open;
};

struct xts *xts_new(const uint8_t key[XTS_KEY]) {
  if (!load()) return NULL;
  struct xts *xts = calloc(1, sizeof *xts);
  if (!xts) return NULL;
  if ((xts->seal = ssl.cipher_new()) && (xts->open = ssl.cipher_new()) && ssl.init(xts->seal, ssl.aes_256_xts(), NULL, key, NULL, 1) &&
      ssl.init(xts->open, ssl.aes_256_xts(), NULL, key, NULL, 0)) {
    return xts;
  }
  xts_free(xts);
  return NULL;
}

void xts_free(struct xts *xts) {
  /* OpenSSL wipes what it frees. */
  if (xts->seal) ssl.cipher_free(xts->seal);
  if (xts->open) ssl.cipher_free(xts->open);
  free(xts);
}

static void put_le(uint8_t *to, uint64_t value) {
  for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (8 * i));
}

/* `length` bytes that lie within one unit, `skip` bytes behind its start. */
static int crypt_in_unit(pointer cipher, uint64_t file, uint64_t unit, size_t skip, const uint8_t *from, size_t length, uint8_t *to) {
  uint8_t tweak[16];
  int written;
  put_le(tweak, file);
  put_le(tweak + 8, unit);
  if (!ssl.init(cipher, NULL, NULL, NULL, tweak, -1)) return 0;
  if (skip == 0) return ssl.update(cipher, to, &written, from, (int)length) && (size_t)written == length;
  /* Blocks do not depend on each other, but a unit is gone through from its start. */
  uint8_t whole[XTS_UNIT];
  memset(whole, 0, skip);
  memcpy(whole + skip, from, length);
  if (!ssl.update(cipher, whole, &written, whole, (int)(skip + length)) || (size_t)written != skip + length) return 0;
  memcpy(to, whole + skip, length);
  return 1;
}

static size_t part_of_unit(uint64_t position, size_t left) {
  size_t room = XTS_UNIT - (size_t)(position % XTS_UNIT);
  return left < room ? left : room;
}

int xts_seal(struct xts *xts, uint64_t file, uint64_t position, const uint8_t *from, size_t length, uint8_t *to) {
  for (size_t at = 0; at < length;) {
    size_t some = part_of_unit(position + at, length - at);
    if (!crypt_in_unit(xts->seal, file, (position + at) / XTS_UNIT, (position + at) % XTS_UNIT, from + at, some, to + at)) return 0;
    at += some;
  }
  return 1;
}

static int is_zero_block(const uint8_t *block) {
  uint64_t a, b;
  memcpy(&a, block, 8);
  memcpy(&b, block + 8, 8);
  return (a | b) == 0;
}

int xts_open(struct xts *xts, uint64_t file, uint64_t position, const uint8_t *from, size_t length, uint8_t *to) {
  for (size_t at = 0; at < length;) {
    size_t some = part_of_unit(position + at, length - at);
    uint8_t hole[XTS_UNIT / XTS_BLOCK];
    size_t holes = 0;
    for (size_t block = 0; block < some / XTS_BLOCK; block++) holes += hole[block] = (uint8_t)is_zero_block(from + at + block * XTS_BLOCK);
    if (holes == some / XTS_BLOCK) memset(to + at, 0, some);
    else {
      if (!crypt_in_unit(xts->open, file, (position + at) / XTS_UNIT, (position + at) % XTS_UNIT, from + at, some, to + at)) return 0;
      for (size_t block = 0; holes > 0 && block < some / XTS_BLOCK; block++) {
        if (!hole[block]) continue;
        memset(to + at + block * XTS_BLOCK, 0, XTS_BLOCK);
        holes--;
      }
    }
    at += some;
  }
  return 1;
}
