/* lz4.c for JavaScript. */
#include "arguments.h"
#include "lz4.h"

namespace {

/* (block, target): bytes written, or -1 if the block is damaged or gives more than fits. */
napi_value lz4Decode(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes block = a.bytes(0), target = a.bytes(1);
  if (a.failed) return nullptr;
  return makeNumber(env, static_cast<double>(lz4_decode(block.data, block.length, target.data, target.length)));
}

/* (block, most): bytes of plaintext, or -1 if the block is cut off or there are more. */
napi_value lz4PlainLength(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes block = a.bytes(0);
  int64_t most = a.integer(1);
  if (a.failed) return nullptr;
  return makeNumber(env, most < 0 ? -1 : static_cast<double>(lz4_plain_length(block.data, block.length, static_cast<size_t>(most))));
}

/* (data, target): bytes written, or -1 if they do not fit. */
napi_value lz4Encode(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes data = a.bytes(0), target = a.bytes(1);
  if (a.failed) return nullptr;
  return makeNumber(env, data.length >> 31 ? -1 : static_cast<double>(lz4_encode(data.data, data.length, target.data, target.length)));
}

}  // namespace

void registerLz4(napi_env env, napi_value exports) {
  defineFunction(env, exports, "lz4Decode", lz4Decode);
  defineFunction(env, exports, "lz4PlainLength", lz4PlainLength);
  defineFunction(env, exports, "lz4Encode", lz4Encode);
}
