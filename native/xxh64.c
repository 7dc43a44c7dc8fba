/* The algorithm as its specification has it: four lanes of eight bytes, folded into one number at the end. Little endian hosts. */
#include "xxh64.h"

#include <string.h>

static const uint64_t P1 = 11400714785074694791ULL, P2 = 14029467366897019727ULL, P3 = 1609587929392839161ULL, P4 = 9650029242287828579ULL,
                      P5 = 2870177450012600261ULL;

static inline uint64_t rotate(uint64_t value, int by) { return value << by | value >> (64 - by); }

static inline uint64_t read64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, 8);
  return value;
}

static inline uint64_t step(uint64_t lane, uint64_t input) { return rotate(lane + input * P2, 31) * P1; }

static inline uint64_t fold(uint64_t hash, uint64_t lane) { return (hash ^ step(0, lane)) * P1 + P4; }

void xxh64_begin(Xxh64 *state) {
  memset(state, 0, sizeof *state);
  state->lanes[0] = P1 + P2;
  state->lanes[1] = P2;
  state->lanes[3] = 0 - P1;
}

/* `length` is a multiple of 32. */
static void stripes(Xxh64 *state, const uint8_t *data, size_t length) {
  uint64_t a = state->lanes[0], b = state->lanes[1], c = state->lanes[2], d = state->lanes[3];
  for (const uint8_t *end = data + length; data < end; data += 32) {
    a = step(a, read64(data));
    b = step(b, read64(data + 8));
    c = step(c, read64(data + 16));
    d = step(d, read64(data + 24));
  }
  state->lanes[0] = a;
  state->lanes[1] = b;
  state->lanes[2] = c;
  state->lanes[3] = d;
}

void xxh64_update(Xxh64 *state, const uint8_t *data, size_t length) {
  state->total += length;
  if (state->held + length < 32) {
    if (length > 0) memcpy(state->rest + state->held, data, length);
    state->held += length;
    return;
  }
  if (state->held > 0) {
    size_t missing = 32 - state->held;
    memcpy(state->rest + state->held, data, missing);
    stripes(state, state->rest, 32);
    data += missing;
    length -= missing;
  }
  stripes(state, data, length & ~(size_t)31);
  state->held = length & 31;
  memcpy(state->rest, data + (length & ~(size_t)31), state->held);
}

uint64_t xxh64_digest(const Xxh64 *state) {
  const uint64_t *lanes = state->lanes;
  uint64_t hash;
  if (state->total >= 32) {
    hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    for (int lane = 0; lane < 4; lane++) hash = fold(hash, lanes[lane]);
  } else {
    hash = P5;
  }
  hash += state->total;
  const uint8_t *at = state->rest, *end = at + state->held;
  for (; at + 8 <= end; at += 8) hash = rotate(hash ^ step(0, read64(at)), 27) * P1 + P4;
  if (at + 4 <= end) {
    uint32_t word;
    memcpy(&word, at, 4);
    hash = rotate(hash ^ word * P1, 23) * P2 + P3;
    at += 4;
  }
  for (; at < end; at++) hash = rotate(hash ^ *at * P5, 11) * P1;
  hash ^= hash >> 33;
  hash *= P2;
  hash ^= hash >> 29;
  hash *= P3;
  hash ^= hash >> 32;
  return hash;
}
