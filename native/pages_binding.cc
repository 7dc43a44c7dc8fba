/*
 * Pages and other memory. Copies between memory in one piece and pages of a slab. V8 itself copies shared memory word by word, with loads and stores that
 * other threads may watch: four times as slow. Here the owner of the pages has said that nobody does.
 */
#include "arguments.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct Pages {
  Bytes slab, numbers;
  size_t pageBytes, count;
  const uint32_t *number;

  Pages(Arguments &a, size_t at) {
    slab = a.bytes(at);
    numbers = a.bytes(at + 1);
    pageBytes = static_cast<size_t>(a.integer(at + 2));
    count = numbers.length / 4;
    number = reinterpret_cast<const uint32_t *>(numbers.data);
  }

  uint8_t *page(size_t index) const {
    return index < count && pageBytes && number[index] < slab.length / pageBytes ? slab.data + number[index] * pageBytes : nullptr;
  }
};

/* Copies `length` bytes between `piece` and the pages, from byte `offset` of the pages on. False if they do not hold so many. */
bool copy(const Pages &pages, size_t offset, uint8_t *piece, size_t length, bool toPages) {
  while (length > 0) {
    uint8_t *page = pages.page(offset / pages.pageBytes);
    if (!page) return false;
    size_t within = offset % pages.pageBytes, some = pages.pageBytes - within;
    if (some > length) some = length;
    if (toPages) memcpy(page + within, piece, some);
    else memcpy(piece, page + within, some);
    offset += some;
    piece += some;
    length -= some;
  }
  return true;
}

napi_value outOfRange(napi_env env) {
  napi_throw_range_error(env, nullptr, "the pages do not hold so much");
  return nullptr;
}

/* (slab, numbers, pageBytes, start, plain) */
napi_value scatterPages(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Pages pages(a, 0);
  int64_t start = a.integer(3);
  Bytes plain = a.bytes(4);
  if (a.failed) return nullptr;
  if (start < 0 || !pages.pageBytes || !copy(pages, static_cast<size_t>(start), plain.data, plain.length, true)) return outOfRange(env);
  return makeUndefined(env);
}

/* (slab, numbers, pageBytes, from, to, into, at) */
napi_value gatherPages(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Pages pages(a, 0);
  int64_t from = a.integer(3), to = a.integer(4);
  Bytes into = a.bytes(5);
  int64_t at = a.integer(6);
  if (a.failed) return nullptr;
  if (from < 0 || to < from || at < 0 || static_cast<size_t>(at) > into.length || into.length - at < static_cast<size_t>(to - from) || !pages.pageBytes ||
      !copy(pages, from, into.data + at, to - from, false)) {
    return outOfRange(env);
  }
  return makeUndefined(env);
}

/* (memory): its whole pages go back to the host and read as zeros from then on; what is beside them stays. */
napi_value giveBackPages(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes memory = a.bytes(0);
  if (a.failed) return nullptr;
  uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), start = reinterpret_cast<uintptr_t>(memory.data);
  uintptr_t from = (start + page - 1) / page * page, to = (start + memory.length) / page * page;
  /* Should the host refuse, nothing but memory is lost. */
  if (from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_DONTNEED);
  return makeUndefined(env);
}

/* (from, to): memory from one place to the beginning of another, either of which may be shared. */
napi_value copyMemory(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes from = a.bytes(0), to = a.bytes(1);
  if (a.failed) return nullptr;
  if (from.length > to.length) {
    napi_throw_range_error(env, nullptr, "the memory does not hold so much");
    return nullptr;
  }
  memmove(to.data, from.data, from.length);
  return makeUndefined(env);
}

/* (length): memory that begins at a page's beginning, as a disk wants it that is written to directly. */
napi_value alignedMemory(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int64_t wanted = a.integer(0);
  if (a.failed) return nullptr;
  /* No addition overflows. */
  if (wanted < 0 || wanted > INT64_MAX / 2) {
    napi_throw_range_error(env, nullptr, "no memory has this length");
    return nullptr;
  }
  size_t length = static_cast<size_t>(wanted);
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void *memory = aligned_alloc(page, (length + page - 1) / page * page);
  if (!memory) return throwErrno(env, ENOMEM, "aligned_alloc");
  memset(memory, 0, length);
  napi_value buffer, array;
  if (napi_create_external_arraybuffer(env, memory, length, [](napi_env, void *data, void *) { free(data); }, nullptr, &buffer) != napi_ok) {
    free(memory);
    return throwErrno(env, ENOMEM, "aligned_alloc");
  }
  napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array);
  return array;
}

/* (): what malloc keeps of freed memory (see keepChunkMemory) goes back to the host. Other threads that allocate wait meanwhile. */
napi_value trimHeap(napi_env env, napi_callback_info info) {
  malloc_trim(0);
  return makeUndefined(env);
}

}  // namespace

void registerPages(napi_env env, napi_value exports) {
  defineFunction(env, exports, "scatterPages", scatterPages);
  defineFunction(env, exports, "gatherPages", gatherPages);
  defineFunction(env, exports, "giveBackPages", giveBackPages);
  defineFunction(env, exports, "copyMemory", copyMemory);
  defineFunction(env, exports, "alignedMemory", alignedMemory);
  defineFunction(env, exports, "trimHeap", trimHeap);
}
