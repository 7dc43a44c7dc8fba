/*
 * Reading N-API arguments and raising errors. JavaScript has checked kinds and ranges before it calls; what is wrong all
 * the same becomes a TypeError here instead of a crash.
 */
#ifndef BORGFS_ARGUMENTS_H
#define BORGFS_ARGUMENTS_H

#include <node_api.h>
#include <stdint.h>
#include <time.h>

#include <string>
#include <vector>

struct Bytes {
  uint8_t *data = nullptr;
  size_t length = 0;
  std::string text() const { return std::string(reinterpret_cast<const char *>(data), length); }
};

/* The arguments of one call. Any failed read sets `failed` and leaves a pending TypeError. */
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env(env) {
    count = sizeof(values) / sizeof(values[0]);
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
  Bytes bytes(size_t index);
  /* A name or path for the system: one with a NUL byte would be cut short there, and is refused with EINVAL. */
  std::string text(size_t index);
  int64_t integer(size_t index);
  int64_t bigint(size_t index);
  /* Nanoseconds since 1970, any bigint: past what a time_t tells, the last or the first moment that it does. */
  struct timespec time(size_t index);
  bool flag(size_t index);
  int descriptor(size_t index) { return static_cast<int>(integer(index)); }
  napi_value value(size_t index) const { return values[index]; }

  napi_env env;
  bool failed = false;

 private:
  void fail(const char *what);
  napi_value values[13];
  size_t count;
};

/* A pending Error like those of Node's fs: code, errno, syscall. Returns nullptr, so that a binding can return it. */
napi_value throwErrno(napi_env env, int number, const char *syscall);
napi_value makeErrno(napi_env env, int number, const char *syscall);

napi_value makeNumber(napi_env env, double value);
napi_value makeBuffer(napi_env env, const void *data, size_t length);
napi_value makeUndefined(napi_env env);

void defineFunction(napi_env env, napi_value exports, const char *name, napi_callback callback);

void registerChunker(napi_env env, napi_value exports);
void registerEnvelope(napi_env env, napi_value exports);
void registerPbkdf2(napi_env env, napi_value exports);
void registerXts(napi_env env, napi_value exports);
void registerFiles(napi_env env, napi_value exports);
void registerDirectory(napi_env env, napi_value exports);
void registerPages(napi_env env, napi_value exports);
void registerChunkRows(napi_env env, napi_value exports);
void registerIndex(napi_env env, napi_value exports);
void registerCrc32(napi_env env, napi_value exports);
void registerItems(napi_env env, napi_value exports);
void registerDeletion(napi_env env, napi_value exports);
void registerRelease(napi_env env, napi_value exports);
void registerTree(napi_env env, napi_value exports);
void registerAnswers(napi_env env, napi_value exports);
void registerArrivals(napi_env env, napi_value exports);
void registerLz4(napi_env env, napi_value exports);
void registerKernel(napi_env env, napi_value exports);

/*
 * One piece of work that runs on libuv's pool: run() there, without N-API; value() back in JavaScript's thread. A
 * reference keeps the borrowed argument alive meanwhile. The object deletes itself when the promise is settled.
 */
class Work {
 public:
  virtual ~Work() = default;
  virtual void run() = 0;
  virtual napi_value value(napi_env env) = 0;
  /* Set by run(): the promise is rejected with this errno. */
  int error = 0;
  const char *syscall = "";

  /* Starts it; `borrowed` may be nullptr. Returns the promise. */
  static napi_value start(napi_env env, Work *work, napi_value borrowed, const char *name);

 private:
  napi_async_work handle = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref keep = nullptr;
};

#endif
