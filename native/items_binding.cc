/* The references of an item stream for JavaScript: one array of words, so that a call makes one object. */
#include "arguments.h"
#include "items.h"

#include <string.h>

namespace {

/* (stream) -> status, consumed, files, parts, then four words for each reference */
napi_value itemReferences(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes stream = a.bytes(0);
  if (a.failed) return nullptr;
  if (stream.length > UINT32_MAX) {
    napi_throw_range_error(env, nullptr, "a stream of more than 4 GiB in one piece");
    return nullptr;
  }
  std::vector<uint32_t> words(4);
  msgpack cursor = {stream.data, stream.data + stream.length}, chunks;
  uint32_t status = 0;
  while (cursor.at < cursor.end) {
    size_t count;
    int listed, part, found = item_read_references(&cursor, &chunks, &count, &listed, &part);
    if (found != ITEM_OK) {
      status = found == ITEM_TRUNCATED ? 1 : 2;
      break;
    }
    if (listed) words[part ? 3 : 2]++;
    for (; count > 0; count--) {
      const uint8_t *id;
      uint32_t size, csize;
      item_chunk(&chunks, &id, &size, &csize);
      words.insert(words.end(), {static_cast<uint32_t>(id - stream.data), size, csize, static_cast<uint32_t>(part)});
    }
  }
  words[0] = status;
  words[1] = static_cast<uint32_t>(cursor.at - stream.data);
  void *data = nullptr;
  napi_value buffer, result = nullptr;
  if (napi_create_arraybuffer(env, words.size() * 4, &data, &buffer) != napi_ok) return nullptr;
  memcpy(data, words.data(), words.size() * 4);
  napi_create_typedarray(env, napi_uint32_array, words.size(), buffer, 0, &result);
  return result;
}

}  // namespace

void registerItems(napi_env env, napi_value exports) { defineFunction(env, exports, "itemReferences", itemReferences); }
