/* items.c for JavaScript: one array of words, so that a call makes one object. */
#include "arguments.h"
#include "items.h"

#include <stdlib.h>
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
  item_references found = {};
  size_t consumed = 0;
  int status = items_references(stream.data, stream.length, &consumed, &found);
  uint32_t head[4] = {static_cast<uint32_t>(status), static_cast<uint32_t>(consumed), found.files, found.parts};
  void *data = nullptr;
  napi_value buffer, words = nullptr;
  size_t bytes = sizeof head + found.count * 16;
  if (napi_create_arraybuffer(env, bytes, &data, &buffer) == napi_ok) {
    memcpy(data, head, sizeof head);
    if (found.count) memcpy(static_cast<uint8_t *>(data) + sizeof head, found.words, found.count * 16);
    napi_create_typedarray(env, napi_uint32_array, bytes / 4, buffer, 0, &words);
  }
  free(found.words);
  return words;
}

}  // namespace

void registerItems(napi_env env, napi_value exports) { defineFunction(env, exports, "itemReferences", itemReferences); }
