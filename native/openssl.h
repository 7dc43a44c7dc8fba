/*
 * OpenSSL's functions, looked up in the running process: Node exports them when it was built with its own copy, and the system's
 * library is loaded when it was not. Nothing has to be linked or installed.
 */
#ifndef BORGFS_OPENSSL_H
#define BORGFS_OPENSSL_H

#include <stddef.h>
#include <stdint.h>

typedef void *pointer;
struct openssl {
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
};
extern struct openssl ssl;

/* 1 if all functions were found; to be called before any is used. */
int openssl_load(void);

#endif
