/* arrivals.c for JavaScript: the memory that a thread gives for it once, and one loan after the other. */
#include "arrivals_binding.h"
#include "answers_binding.h"
#include "arguments.h"
#include "arrivals.h"

#include <string.h>
#include <time.h>

namespace {

/* As src/fs/fuse/kernel/directory-loans.ts gives them. */
enum Term { DIRECTORY, MODE, NLINK, UID, GID, SIZE, GENERATION, TTL_SECONDS, IS_LIVE, FIRST_NODE, FIRST_HANDLE, DATA_START, DATA_ROOM, KNOWN_ROOM, KEEPS_NAMES, TERMS };
enum Time { ATIME, MTIME, CTIME, CLOCK, TIMES };

struct Memory {
  Bytes files, names, data, known, terms, times;
  napi_ref kept[6];
};

thread_local arrivals loan;
thread_local Memory memory;
thread_local bool isOpen = false, isLent = false;

double *terms() { return reinterpret_cast<double *>(memory.terms.data); }
int64_t *times() { return reinterpret_cast<int64_t *>(memory.times.data); }

void closeMemory(napi_env env) {
  for (napi_ref &each : memory.kept) {
    if (each) napi_delete_reference(env, each);
    each = nullptr;
  }
  isOpen = isLent = false;
}

/* (files, names, data, known, terms, times, key) */
napi_value openArrivals(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Memory wanted{};
  Bytes *parts[] = {&wanted.files, &wanted.names, &wanted.data, &wanted.known, &wanted.terms, &wanted.times};
  for (size_t i = 0; i < 6; i++) *parts[i] = a.bytes(i);
  Bytes key = a.bytes(6);
  if (a.failed) return nullptr;
  bool isAligned = true;
  for (const Bytes *part : {&wanted.files, &wanted.known, &wanted.terms, &wanted.times}) isAligned = isAligned && reinterpret_cast<uintptr_t>(part->data) % 8 == 0;
  if (isLent || !isAligned || wanted.terms.length < TERMS * sizeof(double) || wanted.times.length < TIMES * sizeof(int64_t) || key.length != sizeof loan.keys) {
    napi_throw_type_error(env, nullptr, "aligned memory for files, names, contents, hashes, terms and times, and a key of 16 bytes, are wanted while nothing is lent");
    return nullptr;
  }
  closeMemory(env);
  memory = wanted;
  for (size_t i = 0; i < 6; i++) napi_create_reference(env, a.value(i), 1, &memory.kept[i]);
  loan = arrivals{};
  memcpy(loan.keys, key.data, sizeof loan.keys);
  isOpen = true;
  return makeUndefined(env);
}

/* What JavaScript has as a number, if it is one of these. */
uint64_t whole(double value) { return value >= 0 && value <= 9007199254740991.0 ? static_cast<uint64_t>(value) : 0; }
uint32_t word(double value) { return static_cast<uint32_t>(whole(value)); }

size_t within(double value, size_t most) { return value >= 0 && value <= static_cast<double>(most) ? static_cast<size_t>(value) : 0; }

/* (names): each a byte with its length, and its bytes. */
napi_value lendDirectory(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes names = a.bytes(0);
  if (a.failed) return nullptr;
  napi_value result;
  bool complete = isOpen && !isLent;
  if (complete) {
    const double *is = terms();
    const int64_t *at = times();
    loan.directory = whole(is[DIRECTORY]);
    loan.directory_mode = word(is[MODE]);
    loan.directory_nlink = word(is[NLINK]);
    loan.directory_uid = word(is[UID]);
    loan.directory_gid = word(is[GID]);
    loan.directory_size = whole(is[SIZE]);
    loan.generation = whole(is[GENERATION]);
    loan.ttl_seconds = word(is[TTL_SECONDS]);
    loan.is_live = is[IS_LIVE] != 0;
    loan.first_node = whole(is[FIRST_NODE]);
    loan.first_handle = whole(is[FIRST_HANDLE]);
    loan.directory_atime_ns = at[ATIME];
    loan.directory_mtime_ns = at[MTIME];
    loan.directory_ctime_ns = at[CTIME];
    loan.clock_ns = loan.last_ns = at[CLOCK];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    loan.clock_base_ns = static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
    loan.files = reinterpret_cast<arrival *>(memory.files.data);
    loan.count = loan.just_made = 0;
    loan.room = memory.files.length / sizeof(arrival);
    loan.names = memory.names.data;
    loan.names_length = 0;
    loan.names_room = memory.names.length;
    size_t start = within(is[DATA_START], memory.data.length);
    loan.data = memory.data.data + start;
    loan.data_length = 0;
    loan.data_room = within(is[DATA_ROOM], memory.data.length - start);
    loan.known = reinterpret_cast<uint64_t *>(memory.known.data);
    if (is[KEEPS_NAMES] == 0) {
      loan.known_room = within(is[KNOWN_ROOM], memory.known.length / sizeof(uint64_t));
      loan.known_count = 0;
      memset(loan.known, 0, loan.known_room * sizeof(uint64_t));
    }
    complete = loan.known_room > 0 && (loan.known_room & (loan.known_room - 1)) == 0;
    for (size_t next = 0; complete && next < names.length;) {
      size_t length = names.data[next++];
      complete = names.length - next >= length && arrivals_know(&loan, names.data + next, length);
      next += length;
    }
    isLent = complete;
    /* What is half known is not known. */
    if (!complete) loan.known_room = loan.known_count = 0;
  }
  napi_get_boolean(env, complete, &result);
  return result;
}

/* (): how many files arrived. terms[0] is the length of their contents, times[0] that of the directory, times[1] the last that was told. */
napi_value endLoan(napi_env env, napi_callback_info) {
  size_t count = isLent ? loan.count : 0;
  if (isLent) {
    terms()[0] = static_cast<double>(loan.data_length);
    times()[0] = loan.directory_mtime_ns;
    times()[1] = loan.last_ns;
  }
  isLent = false;
  return makeNumber(env, static_cast<double>(count));
}

}  // namespace

long answerHere(uint8_t *slot, size_t length, size_t room) {
  loan.just_made = 0;
  long answer = answerByTree(slot, length, room);
  return answer == ANSWER_OTHER && isLent ? arrivals_answer(&loan, slot, length, room) : answer;
}

void replyNotTaken() {
  if (isLent) arrivals_not_taken(&loan);
}

void registerArrivals(napi_env env, napi_value exports) {
  defineFunction(env, exports, "openArrivals", openArrivals);
  defineFunction(env, exports, "lendDirectory", lendDirectory);
  defineFunction(env, exports, "endLoan", endLoan);
}
