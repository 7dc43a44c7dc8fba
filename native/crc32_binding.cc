/* crc32.c for JavaScript. */
#include "arguments.h"
#include "crc32.h"

namespace {

napi_value update(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes data = a.bytes(0);
  int64_t crc = a.integer(1);
  if (a.failed) return nullptr;
  return makeNumber(env, crc32_update(static_cast<uint32_t>(crc), data.data, data.length));
}

}  // namespace

void registerCrc32(napi_env env, napi_value exports) {
  /* Absent where zlib's is as good. */
  if (crc32_is_fast()) defineFunction(env, exports, "crc32", update);
}
