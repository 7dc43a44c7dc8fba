/* Registers the functions of each file, and holds what all bindings share. */
#include "arguments.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

void Arguments::fail(const char *what) {
  if (!failed) napi_throw_type_error(env, nullptr, what);
  failed = true;
}

Bytes Arguments::bytes(size_t index) {
  Bytes result;
  napi_typedarray_type type;
  size_t length = 0, offset = 0;
  void *data = nullptr;
  napi_value buffer;
  if (index >= count || napi_get_typedarray_info(env, values[index], &type, &length, &data, &buffer, &offset) != napi_ok) {
    fail("a typed array is wanted");
    return result;
  }
  size_t width = type == napi_uint32_array || type == napi_int32_array || type == napi_float32_array ? 4
                 : type == napi_float64_array || type == napi_bigint64_array || type == napi_biguint64_array ? 8
                 : type == napi_uint16_array || type == napi_int16_array ? 2 : 1;
  result.data = static_cast<uint8_t *>(data);
  result.length = length * width;
  return result;
}

std::string Arguments::text(size_t index) {
  Bytes value = bytes(index);
  if (!failed && value.length && memchr(value.data, 0, value.length)) {
    failed = true;
    throwErrno(env, EINVAL, "a name with a NUL byte");
  }
  return failed ? std::string() : value.text();
}

int64_t Arguments::integer(size_t index) {
  int64_t value = 0;
  if (index >= count || napi_get_value_int64(env, values[index], &value) != napi_ok) fail("a number is wanted");
  return value;
}

int64_t Arguments::bigint(size_t index) {
  int64_t value = 0;
  bool lossless = false;
  if (index >= count || napi_get_value_bigint_int64(env, values[index], &value, &lossless) != napi_ok) fail("a bigint is wanted");
  return value;
}

struct timespec Arguments::time(size_t index) {
  int negative = 0;
  uint64_t words[2] = {0, 0};
  size_t wordCount = 2;
  const int64_t most = INT64_MAX / 4;
  if (index >= count || napi_get_value_bigint_words(env, values[index], &negative, &wordCount, words) != napi_ok) {
    fail("a bigint is wanted");
    return {0, 0};
  }
  unsigned __int128 magnitude = static_cast<unsigned __int128>(words[1]) << 64 | words[0];
  const unsigned second = 1000000000;
  if (wordCount > 2 || magnitude / second > static_cast<uint64_t>(most)) return {negative ? -most : most, 0};
  int64_t seconds = static_cast<int64_t>(magnitude / second), rest = static_cast<int64_t>(magnitude % second);
  if (!negative) return {seconds, static_cast<long>(rest)};
  return rest == 0 ? timespec{-seconds, 0} : timespec{-seconds - 1, static_cast<long>(second - rest)};
}

bool Arguments::flag(size_t index) {
  bool value = false;
  if (index >= count || napi_get_value_bool(env, values[index], &value) != napi_ok) fail("a boolean is wanted");
  return value;
}

napi_value makeErrno(napi_env env, int number, const char *syscall) {
  const char *code = strerrorname_np(number);
  std::string message = std::string(code ? code : "EUNKNOWN") + ": " + strerror(number) + ", " + syscall;
  napi_value error, text, codeText, value;
  napi_create_string_utf8(env, message.c_str(), message.size(), &text);
  napi_create_string_utf8(env, code ? code : "EUNKNOWN", NAPI_AUTO_LENGTH, &codeText);
  napi_create_error(env, codeText, text, &error);
  napi_create_int32(env, number, &value);
  napi_set_named_property(env, error, "errno", value);
  napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, error, "syscall", value);
  return error;
}

napi_value throwErrno(napi_env env, int number, const char *syscall) {
  napi_throw(env, makeErrno(env, number, syscall));
  return nullptr;
}

napi_value makeNumber(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

napi_value makeBuffer(napi_env env, const void *data, size_t length) {
  napi_value result = nullptr;
  napi_create_buffer_copy(env, length, length ? data : "", nullptr, &result);
  return result;
}

napi_value makeUndefined(napi_env env) {
  napi_value result;
  napi_get_undefined(env, &result);
  return result;
}

void defineFunction(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
  napi_set_named_property(env, exports, name, function);
}

napi_value Work::start(napi_env env, Work *work, napi_value borrowed, const char *name) {
  napi_value promise, label;
  napi_create_promise(env, &work->deferred, &promise);
  if (borrowed) napi_create_reference(env, borrowed, 1, &work->keep);
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &label);
  napi_create_async_work(
      env, nullptr, label, [](napi_env, void *data) { static_cast<Work *>(data)->run(); },
      [](napi_env env, napi_status status, void *data) {
        Work *work = static_cast<Work *>(data);
        if (work->keep) napi_delete_reference(env, work->keep);
        if (work->error || status != napi_ok) {
          napi_reject_deferred(env, work->deferred, makeErrno(env, work->error ? work->error : 125, work->syscall));
        } else {
          napi_resolve_deferred(env, work->deferred, work->value(env));
        }
        napi_delete_async_work(env, work->handle);
        delete work;
      },
      work, &work->handle);
  napi_queue_async_work(env, work->handle);
  return promise;
}

/*
 * Chunks are megabytes that come and go all the time. By default each would be mapped and unmapped, and every page faulted in
 * anew, which costs more than hashing it. Freed memory of this size is kept for the next chunk instead.
 */
static void keepChunkMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
  mallopt(M_ARENA_MAX, 2);
}

/* Context-aware by construction (no globals): each worker thread gets its own exports. */
NAPI_MODULE_INIT() {
  keepChunkMemory();
  registerChunker(env, exports);
  registerEnvelope(env, exports);
  registerPbkdf2(env, exports);
  registerXts(env, exports);
  registerFiles(env, exports);
  registerDirectory(env, exports);
  registerPages(env, exports);
  registerChunkRows(env, exports);
  registerIndex(env, exports);
  registerCrc32(env, exports);
  registerItems(env, exports);
  registerDeletion(env, exports);
  registerRelease(env, exports);
  registerTree(env, exports);
  registerAnswers(env, exports);
  registerArrivals(env, exports);
  registerLz4(env, exports);
  registerKernel(env, exports);
  return exports;
}
