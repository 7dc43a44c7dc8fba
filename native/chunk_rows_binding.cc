/* chunk_rows.c for JavaScript. */
#include "arguments.h"
#include "chunk_rows.h"

namespace {

/* (data, position, count, rows) -> position after them, or -1 */
napi_value unpackChunkRows(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes data = a.bytes(0);
  int64_t position = a.integer(1), count = a.integer(2);
  Bytes rows = a.bytes(3);
  if (a.failed) return nullptr;
  if (position < 0 || count < 0 || static_cast<size_t>(count) > rows.length / CHUNK_ROW_BYTES) {
    napi_throw_range_error(env, nullptr, "the rows do not hold so much");
    return nullptr;
  }
  return makeNumber(env, static_cast<double>(chunk_rows_unpack(data.data, data.length, position, count, rows.data)));
}

}  // namespace

void registerChunkRows(napi_env env, napi_value exports) { defineFunction(env, exports, "unpackChunkRows", unpackChunkRows); }
