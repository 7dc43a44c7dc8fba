/* deletion.c for JavaScript. */
#include "arguments.h"
#include "deletion.h"

#include <string.h>

namespace {

bool outOfRange(Arguments &a, bool wrong) {
  if (wrong && !a.failed) napi_throw_range_error(a.env, nullptr, "ids, words or buckets of other lengths");
  return a.failed || wrong;
}

bucket_table tableOf(Bytes buckets, int64_t values) {
  return {buckets.data, buckets.length / (DELETION_ID_BYTES + 4 * static_cast<size_t>(values)), static_cast<size_t>(values)};
}

napi_value twoNumbers(napi_env env, size_t first, size_t second) {
  napi_value result;
  napi_create_array_with_length(env, 2, &result);
  napi_set_element(env, result, 0, makeNumber(env, static_cast<double>(first)));
  napi_set_element(env, result, 1, makeNumber(env, static_cast<double>(second)));
  return result;
}

/* (buckets, values, ids, words): how many were found. */
napi_value takeOutBuckets(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes buckets = a.bytes(0), ids = a.bytes(2), words = a.bytes(3);
  int64_t values = a.integer(1);
  size_t count = ids.length / DELETION_ID_BYTES;
  if (outOfRange(a, values < 1 || values > 8 || words.length < count * 4 * static_cast<size_t>(values))) return nullptr;
  return makeNumber(env, static_cast<double>(deletion_take_out(tableOf(buckets, values), ids.data, count, reinterpret_cast<uint32_t *>(words.data))));
}

/* (buckets, ids, words, stride, known): how many of the buckets taken were empty, and how many ids were known. */
napi_value enterBuckets(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes buckets = a.bytes(0), ids = a.bytes(1), words = a.bytes(2), known = a.bytes(4);
  int64_t stride = a.integer(3);
  size_t count = ids.length / DELETION_ID_BYTES;
  if (outOfRange(a, stride < 1 || stride > 8 || words.length < count * 4 * static_cast<size_t>(stride) || known.length < count * 4)) return nullptr;
  size_t emptied;
  size_t already = deletion_enter(tableOf(buckets, 1), ids.data, count, reinterpret_cast<uint32_t *>(words.data), static_cast<size_t>(stride), reinterpret_cast<uint32_t *>(known.data), &emptied);
  return twoNumbers(env, emptied, already);
}

/* (buckets, limit, packed): bytes, and how many entries are in them. */
napi_value packShadow(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes buckets = a.bytes(0), packed = a.bytes(2);
  int64_t limit = a.integer(1);
  bucket_table table = tableOf(buckets, 1);
  /* Whatever the table says of itself: counted, so that there is room. */
  size_t used = 0;
  for (size_t bucket = 0; !a.failed && bucket < table.count; bucket++) {
    uint32_t mark;
    memcpy(&mark, table.buckets + bucket * (DELETION_ID_BYTES + 4) + DELETION_ID_BYTES, 4);
    used += mark < static_cast<uint32_t>(limit);
  }
  if (outOfRange(a, limit < 0 || limit > 0xfffffffe || packed.length < used * DELETION_PACKED_BYTES)) return nullptr;
  size_t entries, bytes = deletion_pack(table, static_cast<uint32_t>(limit), packed.data, &entries);
  return twoNumbers(env, bytes, entries);
}

/* (packed, position, ids, words): bytes, and how many entries were in them. */
napi_value unpackShadow(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes packed = a.bytes(0), ids = a.bytes(2), words = a.bytes(3);
  int64_t position = a.integer(1);
  size_t count = ids.length / DELETION_ID_BYTES;
  if (outOfRange(a, position < 0 || static_cast<uint64_t>(position) > packed.length || words.length < count * 4)) return nullptr;
  size_t bytes, entries = deletion_unpack(packed.data + position, packed.length - static_cast<size_t>(position), count, ids.data, reinterpret_cast<uint32_t *>(words.data), &bytes);
  return twoNumbers(env, bytes, entries);
}

/* (ids, entries) */
napi_value frameDeletes(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes ids = a.bytes(0), entries = a.bytes(1);
  size_t count = ids.length / DELETION_ID_BYTES;
  if (outOfRange(a, entries.length < count * DELETION_ENTRY_BYTES)) return nullptr;
  deletion_frame(ids.data, count, entries.data);
  return makeUndefined(env);
}

/* (fd, offsets, first, stride, count, lengths): how many could be read, to lengths[0 …]. */
napi_value entryLengths(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  Bytes offsets = a.bytes(1), lengths = a.bytes(5);
  int64_t first = a.integer(2), stride = a.integer(3), count = a.integer(4);
  if (outOfRange(a, first < 0 || stride < 1 || stride > 8 || count < 1 || count > (int64_t{1} << 31) || static_cast<uint64_t>(first + (count - 1) * stride) * 4 + 4 > offsets.length ||
                        static_cast<uint64_t>(count) * 4 > lengths.length)) return nullptr;
  int error;
  size_t read = deletion_lengths(fd, reinterpret_cast<uint32_t *>(offsets.data) + first, static_cast<size_t>(stride), static_cast<size_t>(count), reinterpret_cast<uint32_t *>(lengths.data), &error);
  if (error) return throwErrno(env, error, "pread");
  return makeNumber(env, static_cast<double>(read));
}

}  // namespace

void registerDeletion(napi_env env, napi_value exports) {
  defineFunction(env, exports, "takeOutBuckets", takeOutBuckets);
  defineFunction(env, exports, "enterBuckets", enterBuckets);
  defineFunction(env, exports, "packShadow", packShadow);
  defineFunction(env, exports, "unpackShadow", unpackShadow);
  defineFunction(env, exports, "frameDeletes", frameDeletes);
  defineFunction(env, exports, "entryLengths", entryLengths);
}
