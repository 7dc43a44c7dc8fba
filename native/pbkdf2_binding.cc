/* pbkdf2.c for JavaScript. */
#include "arguments.h"
#include "pbkdf2.h"

#include <string.h>

#include <memory>

namespace {

/* Holds copies of what is secret, and wipes them. */
class Derive : public Work {
 public:
  explicit Derive(Arguments &arguments) {
    Bytes password = arguments.bytes(0), salt = arguments.bytes(1);
    int64_t count = arguments.integer(2);
    if (arguments.failed) return;
    if (password.length > sizeof secret || salt.length > sizeof salted || count < 1 || count > UINT32_MAX) {
      napi_throw_range_error(arguments.env, nullptr, "password, salt or iterations out of range");
      arguments.failed = true;
      return;
    }
    if (password.length) memcpy(secret, password.data, password.length);
    if (salt.length) memcpy(salted, salt.data, salt.length);
    secretLength = password.length;
    saltLength = salt.length;
    iterations = static_cast<uint32_t>(count);
  }
  ~Derive() override {
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(key, sizeof key);
  }

  void run() override { pbkdf2_sha256(secret, secretLength, salted, saltLength, iterations, key); }
  napi_value value(napi_env env) override { return makeBuffer(env, key, sizeof key); }

 private:
  uint8_t secret[SHA256_BLOCK], salted[SHA256_BLOCK], key[SHA256_HASH];
  size_t secretLength = 0, saltLength = 0;
  uint32_t iterations = 0;
};

/* (password, salt, iterations): a promise of 32 bytes. */
napi_value pbkdf2(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  auto derive = std::make_unique<Derive>(arguments);
  if (arguments.failed) return nullptr;
  return Work::start(env, derive.release(), nullptr, "borgfs:pbkdf2");
}

}  // namespace

/* Only where it is faster than Node's. */
void registerPbkdf2(napi_env env, napi_value exports) {
  if (sha256_is_fast()) defineFunction(env, exports, "pbkdf2", pbkdf2);
}
