/* chunker.c for JavaScript. */
#include "arguments.h"
#include "chunker.h"

#include <string.h>

#include <memory>

namespace {

/* Sums of sizes stay far from where they would wrap around. */
const int64_t largest = int64_t{1} << 31;

/* One call of buzhashCuts: its parameters, and after run() the lengths. */
class Cuts : public Work {
 public:
  explicit Cuts(Arguments &arguments) {
    Bytes tableBytes = arguments.bytes(0);
    int64_t minSize = arguments.integer(1), maxSize = arguments.integer(2);
    uint32_t mask = static_cast<uint32_t>(arguments.integer(3));
    int64_t window = arguments.integer(4);
    Bytes data = arguments.bytes(5);
    int64_t start = arguments.integer(6), end = arguments.integer(7);
    last = arguments.flag(8);
    if (arguments.failed) return;
    if (tableBytes.length != 1024 || start < 0 || start > end || static_cast<uint64_t>(end) > data.length || window < 1 || window > largest || minSize < 1 ||
        minSize > largest || maxSize > largest || maxSize < minSize + window + 1) {
      napi_throw_range_error(arguments.env, nullptr, "chunker parameters out of range");
      arguments.failed = true;
      return;
    }
    table.resize(256);
    memcpy(table.data(), tableBytes.data, 1024);
    params = {table.data(), static_cast<size_t>(minSize), static_cast<size_t>(maxSize), mask, static_cast<size_t>(window)};
    begin = data.data + start;
    length = static_cast<size_t>(end - start);
  }

  void run() override {
    size_t at = 0;
    while (at < length) {
      size_t cut = chunker_next(&params, begin + at, length - at, last);
      if (cut == 0) break;
      lengths.push_back(static_cast<uint32_t>(cut));
      at += cut;
    }
  }

  napi_value value(napi_env env) override {
    void *data;
    napi_value buffer, array;
    napi_create_arraybuffer(env, lengths.size() * 4, &data, &buffer);
    for (size_t i = 0; i < lengths.size(); i++) static_cast<uint32_t *>(data)[i] = lengths[i];
    napi_create_typedarray(env, napi_uint32_array, lengths.size(), buffer, 0, &array);
    return array;
  }

 private:
  std::vector<uint32_t> table, lengths;
  chunker_params params{};
  const uint8_t *begin = nullptr;
  size_t length = 0;
  bool last = false;
};

napi_value buzhashCuts(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Cuts cuts(arguments);
  if (arguments.failed) return nullptr;
  cuts.run();
  return cuts.value(env);
}

napi_value buzhashCutsAsync(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  auto cuts = std::make_unique<Cuts>(arguments);
  if (arguments.failed) return nullptr;
  return Work::start(env, cuts.release(), arguments.value(5), "borgfs:buzhash");
}

napi_value buzhash(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Bytes table = arguments.bytes(0), data = arguments.bytes(1);
  if (arguments.failed || table.length != 1024) return nullptr;
  return makeNumber(env, chunker_hash(reinterpret_cast<uint32_t *>(table.data), data.data, data.length));
}

napi_value buzhashUpdate(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Bytes table = arguments.bytes(0);
  uint32_t sum = static_cast<uint32_t>(arguments.integer(1));
  uint8_t remove = static_cast<uint8_t>(arguments.integer(2)), add = static_cast<uint8_t>(arguments.integer(3));
  size_t length = arguments.integer(4);
  if (arguments.failed || table.length != 1024) return nullptr;
  return makeNumber(env, chunker_roll(reinterpret_cast<uint32_t *>(table.data), sum, remove, add, length));
}

napi_value isZero(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Bytes data = arguments.bytes(0);
  if (arguments.failed) return nullptr;
  napi_value result;
  napi_get_boolean(env, chunker_is_zero(data.data, data.length), &result);
  return result;
}

}  // namespace

void registerChunker(napi_env env, napi_value exports) {
  defineFunction(env, exports, "buzhashCuts", buzhashCuts);
  defineFunction(env, exports, "buzhashCutsAsync", buzhashCutsAsync);
  defineFunction(env, exports, "buzhash", buzhash);
  defineFunction(env, exports, "buzhashUpdate", buzhashUpdate);
  defineFunction(env, exports, "isZero", isZero);
}
