/* release.c for JavaScript. */
#include "arguments.h"
#include "release.h"

#include <string.h>

namespace {

/* (buckets, stream, references as bytes of words, parts) -> Float64Array size, csize, then pairs of a reference's number and what is the matter */
napi_value releaseReferences(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes buckets = a.bytes(0), stream = a.bytes(1), references = a.bytes(2);
  bool parts = a.flag(3);
  if (a.failed) return nullptr;
  size_t count = references.length / (4 * RELEASE_REFERENCE_WORDS);
  std::vector<uint32_t> words(count * RELEASE_REFERENCE_WORDS), left(2 * count);
  if (count > 0) memcpy(words.data(), references.data, words.size() * 4);
  released sums = release_references(buckets.data, buckets.length / RELEASE_BUCKET_BYTES, stream.data, stream.length, words.data(), count, parts, left.data());
  size_t length = 2 + 2 * sums.left;
  void *data = nullptr;
  napi_value buffer, result = nullptr;
  if (napi_create_arraybuffer(env, length * sizeof(double), &data, &buffer) != napi_ok) return nullptr;
  double *values = static_cast<double *>(data);
  values[0] = sums.size;
  values[1] = sums.csize;
  for (size_t index = 0; index < 2 * sums.left; index++) values[2 + index] = left[index];
  napi_create_typedarray(env, napi_float64_array, length, buffer, 0, &result);
  return result;
}

}  // namespace

void registerRelease(napi_env env, napi_value exports) { defineFunction(env, exports, "releaseReferences", releaseReferences); }
