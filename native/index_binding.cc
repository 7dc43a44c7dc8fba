/* Passes over the bytes of index files: their checksum, and what their buckets hold. The state of a checksum is bytes of the caller. */
#include "arguments.h"
#include "xxh64.h"

#include <string.h>

namespace {

/* The state among the arguments, copied out and back, as a typed array may lie anywhere. */
bool readState(napi_env env, const Bytes &bytes, Xxh64 *state) {
  if (bytes.length == sizeof *state) {
    memcpy(state, bytes.data, sizeof *state);
    if (state->held < 32) return true;
  }
  napi_throw_type_error(env, nullptr, "no state of a checksum");
  return false;
}

/* () -> state */
napi_value xxh64Begin(napi_env env, napi_callback_info info) {
  Xxh64 state;
  xxh64_begin(&state);
  return makeBuffer(env, &state, sizeof state);
}

/* (state, data) */
napi_value xxh64Update(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes bytes = a.bytes(0), data = a.bytes(1);
  Xxh64 state;
  if (a.failed || !readState(env, bytes, &state)) return nullptr;
  xxh64_update(&state, data.data, data.length);
  memcpy(bytes.data, &state, sizeof state);
  return makeUndefined(env);
}

/* (state) -> bigint */
napi_value xxh64Digest(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes bytes = a.bytes(0);
  Xxh64 state;
  if (a.failed || !readState(env, bytes, &state)) return nullptr;
  napi_value result;
  napi_create_bigint_uint64(env, xxh64_digest(&state), &result);
  return result;
}

/* (buckets, bucketBytes, markOffset, deletedMark) -> [used, empty]: a mark below deletedMark is a used bucket, one above an empty one. */
napi_value countBuckets(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes buckets = a.bytes(0);
  int64_t stride = a.integer(1), markOffset = a.integer(2), deletedMark = a.integer(3);
  if (a.failed) return nullptr;
  if (stride < 4 || markOffset < 0 || markOffset + 4 > stride) {
    napi_throw_range_error(env, nullptr, "no mark in such a bucket");
    return nullptr;
  }
  size_t used = 0, empty = 0;
  for (const uint8_t *at = buckets.data, *end = at + buckets.length / stride * stride; at < end; at += stride) {
    uint32_t mark;
    memcpy(&mark, at + markOffset, 4);
    used += mark < deletedMark;
    empty += mark > deletedMark;
  }
  napi_value result;
  napi_create_array_with_length(env, 2, &result);
  napi_set_element(env, result, 0, makeNumber(env, static_cast<double>(used)));
  napi_set_element(env, result, 1, makeNumber(env, static_cast<double>(empty)));
  return result;
}

}  // namespace

void registerIndex(napi_env env, napi_value exports) {
  defineFunction(env, exports, "xxh64Begin", xxh64Begin);
  defineFunction(env, exports, "xxh64Update", xxh64Update);
  defineFunction(env, exports, "xxh64Digest", xxh64Digest);
  defineFunction(env, exports, "countBuckets", countBuckets);
}
