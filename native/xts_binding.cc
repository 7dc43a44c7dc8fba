/* xts.c for JavaScript. A cipher is an external value that belongs to the thread that made it. */
#include "arguments.h"
#include "xts.h"

namespace {

napi_value makeXts(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes key = a.bytes(0);
  if (a.failed) return nullptr;
  if (key.length != XTS_KEY) {
    napi_throw_range_error(env, nullptr, "the key of AES-256-XTS has 64 bytes");
    return nullptr;
  }
  xts *made = xts_new(key.data);
  if (!made) return makeUndefined(env);
  napi_value external;
  napi_create_external(env, made, [](napi_env, void *data, void *) { xts_free(static_cast<xts *>(data)); }, nullptr, &external);
  return external;
}

/* (cipher, open, file, position, from, to): as many bytes as `from` has. */
napi_value xtsCrypt(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  bool open = a.flag(1);
  int64_t file = a.integer(2), position = a.integer(3);
  Bytes from = a.bytes(4), to = a.bytes(5);
  void *data = nullptr;
  if (a.failed) return nullptr;
  if (napi_get_value_external(env, a.value(0), &data) != napi_ok || !data) {
    napi_throw_type_error(env, nullptr, "a cipher is wanted");
    return nullptr;
  }
  if (position < 0 || position % XTS_BLOCK || from.length % XTS_BLOCK || to.length < from.length) {
    napi_throw_range_error(env, nullptr, "whole blocks of 16 bytes are wanted");
    return nullptr;
  }
  if (!(open ? xts_open : xts_seal)(static_cast<xts *>(data), static_cast<uint64_t>(file), static_cast<uint64_t>(position), from.data, from.length, to.data)) {
    napi_throw_error(env, nullptr, "OpenSSL failed");
  }
  return makeUndefined(env);
}

}  // namespace

void registerXts(napi_env env, napi_value exports) {
  defineFunction(env, exports, "makeXts", makeXts);
  defineFunction(env, exports, "xtsCrypt", xtsCrypt);
}
