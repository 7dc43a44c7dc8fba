/* pbkdf2.c for JavaScript. */
#include "arguments.h"
#include "pbkdf2.h"

#include <pthread.h>
#include <string.h>

#include <memory>

namespace {

/*
 * Holds copies of what is secret, and wipes them. It has a thread of its own: libuv's pool starts four of them with its first work, and keeps
 * who asked waiting until all four run, which takes longer than this on a busy machine. A short command needs no pool otherwise.
 */
class Derive {
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
  ~Derive() {
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(key, sizeof key);
  }

  /* Returns the promise. From then on the object deletes itself; nullptr, and an error is pending: it does not. */
  napi_value start(napi_env env) {
    napi_value promise, label;
    napi_create_string_utf8(env, "borgfs:pbkdf2", NAPI_AUTO_LENGTH, &label);
    if (napi_create_threadsafe_function(env, nullptr, nullptr, label, 0, 1, nullptr, nullptr, this, settle, &back) != napi_ok ||
        napi_create_promise(env, &deferred, &promise) != napi_ok) {
      napi_throw_error(env, nullptr, "no memory for a thread");
      return nullptr;
    }
    pthread_t thread;
    int error = pthread_create(&thread, nullptr, run, this);
    if (error) {
      napi_release_threadsafe_function(back, napi_tsfn_abort);
      return throwErrno(env, error, "pthread_create");
    }
    pthread_detach(thread);
    return promise;
  }

 private:
  static void *run(void *data) {
    Derive *derive = static_cast<Derive *>(data);
    pbkdf2_sha256(derive->secret, derive->secretLength, derive->salted, derive->saltLength, derive->iterations, derive->key);
    napi_threadsafe_function back = derive->back;
    /* Where JavaScript is going, nobody takes the key any more, and `back` is gone with it. */
    if (napi_call_threadsafe_function(back, nullptr, napi_tsfn_nonblocking) == napi_ok) napi_release_threadsafe_function(back, napi_tsfn_release);
    else delete derive;
    return nullptr;
  }

  /* In JavaScript's thread; env is nullptr where that ends before it came to this. */
  static void settle(napi_env env, napi_value, void *context, void *) {
    Derive *derive = static_cast<Derive *>(context);
    if (env) napi_resolve_deferred(env, derive->deferred, makeBuffer(env, derive->key, sizeof derive->key));
    delete derive;
  }

  napi_threadsafe_function back = nullptr;
  napi_deferred deferred = nullptr;
  uint8_t secret[SHA256_BLOCK], salted[SHA256_BLOCK], key[SHA256_HASH];
  size_t secretLength = 0, saltLength = 0;
  uint32_t iterations = 0;
};

/* (password, salt, iterations): a promise of 32 bytes. */
napi_value pbkdf2(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  auto derive = std::make_unique<Derive>(arguments);
  if (arguments.failed) return nullptr;
  napi_value promise = derive->start(env);
  if (promise) derive.release();
  return promise;
}

}  // namespace

/* Only where it is faster than Node's. */
void registerPbkdf2(napi_env env, napi_value exports) {
  if (sha256_is_fast()) defineFunction(env, exports, "pbkdf2", pbkdf2);
}
