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

  /* The promise; nullptr, and an error is pending. The object is deleted when it is done with. */
  static napi_value start(napi_env env, std::unique_ptr<Derive> derive) {
    napi_value promise, label;
    napi_create_string_utf8(env, "borgfs:pbkdf2", NAPI_AUTO_LENGTH, &label);
    if (napi_create_promise(env, &derive->deferred, &promise) != napi_ok ||
        napi_create_threadsafe_function(env, nullptr, nullptr, label, 0, 1, derive.get(), end, derive.get(), settle, &derive->back) != napi_ok) {
      napi_throw_error(env, nullptr, "no memory for a thread");
      return nullptr;
    }
    /* From here on it is `end` that deletes it. */
    Derive *started = derive.release();
    int error = pthread_create(&started->thread, nullptr, run, started);
    started->runs = error == 0;
    if (started->runs) return promise;
    napi_release_threadsafe_function(started->back, napi_tsfn_abort);
    return throwErrno(env, error, "pthread_create");
  }

 private:
  static void *run(void *data) {
    Derive *derive = static_cast<Derive *>(data);
    pbkdf2_sha256(derive->secret, derive->secretLength, derive->salted, derive->saltLength, derive->iterations, &derive->stop, derive->key);
    /* Where JavaScript is going, nobody takes the key any more, and a function that said so is not to be touched again. */
    if (napi_call_threadsafe_function(derive->back, nullptr, napi_tsfn_nonblocking) == napi_ok) napi_release_threadsafe_function(derive->back, napi_tsfn_release);
    return nullptr;
  }

  /* In JavaScript's thread; env is nullptr where that ends before it came to this, and `context` is gone then. */
  static void settle(napi_env env, napi_value, void *context, void *) {
    if (!env) return;
    Derive *derive = static_cast<Derive *>(context);
    napi_resolve_deferred(env, derive->deferred, makeBuffer(env, derive->key, sizeof derive->key));
  }

  /*
   * In JavaScript's thread, after `settle`, or because that thread ends. Node frees `back` when this returns, whoever still uses it, and perhaps unloads this
   * code: so the thread is waited for.
   */
  static void end(napi_env, void *data, void *) {
    Derive *derive = static_cast<Derive *>(data);
    __atomic_store_n(&derive->stop, 1, __ATOMIC_RELAXED);
    if (derive->runs) pthread_join(derive->thread, nullptr);
    delete derive;
  }

  napi_threadsafe_function back = nullptr;
  napi_deferred deferred = nullptr;
  pthread_t thread{};
  bool runs = false;
  int stop = 0;
  uint8_t secret[SHA256_BLOCK], salted[SHA256_BLOCK], key[SHA256_HASH];
  size_t secretLength = 0, saltLength = 0;
  uint32_t iterations = 0;
};

/* (password, salt, iterations): a promise of 32 bytes. */
napi_value pbkdf2(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  auto derive = std::make_unique<Derive>(arguments);
  if (arguments.failed) return nullptr;
  return Derive::start(env, std::move(derive));
}

}  // namespace

/* Only where it is faster than Node's. */
void registerPbkdf2(napi_env env, napi_value exports) {
  if (sha256_is_fast()) defineFunction(env, exports, "pbkdf2", pbkdf2);
}
