#include "openssl.h"

#include <dlfcn.h>
#include <string.h>

struct openssl ssl;

static int find(void *into, const char *name) {
  void *symbol = dlsym(RTLD_DEFAULT, name);
  memcpy(into, &symbol, sizeof symbol);
  return symbol != NULL;
}

/* Several threads may do this at once: they store the same values. */
int openssl_load(void) {
  return find(&ssl.cipher_new, "EVP_CIPHER_CTX_new") && find(&ssl.cipher_free, "EVP_CIPHER_CTX_free") && find(&ssl.aes_256_ctr, "EVP_aes_256_ctr") &&
         find(&ssl.encrypt_init, "EVP_EncryptInit_ex") && find(&ssl.encrypt_update, "EVP_EncryptUpdate") && find(&ssl.digest_new, "EVP_MD_CTX_new") &&
         find(&ssl.digest_free, "EVP_MD_CTX_free") && find(&ssl.sha256, "EVP_sha256") && find(&ssl.digest_init, "EVP_DigestInit_ex") &&
         find(&ssl.digest_update, "EVP_DigestUpdate") && find(&ssl.digest_final, "EVP_DigestFinal_ex") && find(&ssl.digest_copy, "EVP_MD_CTX_copy_ex") &&
         find(&ssl.cleanse, "OPENSSL_cleanse") && find(&ssl.memcmp, "CRYPTO_memcmp");
}
