#include "hmac.h"

#include <string.h>

int hmac_key_make(struct hmac_key *into, const uint8_t *key, size_t length, int fast) {
  uint8_t padded[SHA256_BLOCK];
  if (length > SHA256_BLOCK) return 0;
  into->fast = fast;
  int ok = fast || ((into->inner_digest = ssl.digest_new()) && (into->outer_digest = ssl.digest_new()) && (into->digest = ssl.digest_new()));
  for (int part = 0; part < 2 && ok; part++) {
    memset(padded, part ? 0x5c : 0x36, SHA256_BLOCK);
    for (size_t i = 0; i < length; i++) padded[i] ^= key[i];
    if (fast) {
      uint32_t *state = part ? into->outer : into->inner;
      memcpy(state, sha256_start, sizeof sha256_start);
      sha256_blocks(state, padded, 1);
    } else {
      pointer digest = part ? into->outer_digest : into->inner_digest;
      ok = ssl.digest_init(digest, ssl.sha256(), NULL) && ssl.digest_update(digest, padded, SHA256_BLOCK);
    }
  }
  ssl.cleanse(padded, sizeof padded);
  return ok;
}

void hmac_key_wipe(struct hmac_key *key) {
  if (key->inner_digest) ssl.digest_free(key->inner_digest);
  if (key->outer_digest) ssl.digest_free(key->outer_digest);
  if (key->digest) ssl.digest_free(key->digest);
  ssl.cleanse(key, sizeof *key);
}

/* What is left of a message, less than a block, and then the outer hash over the inner one. */
static void finish(const struct hmac_key *key, uint32_t state[8], const uint8_t *rest, size_t length, uint8_t hash[SHA256_HASH]) {
  uint8_t end[2 * SHA256_BLOCK], inner[SHA256_HASH];
  /* The padded key was a block of its own. */
  sha256_blocks(state, end, sha256_end(end, rest, SHA256_BLOCK + length));
  sha256_hash(state, inner);
  memcpy(state, key->outer, sizeof key->outer);
  sha256_blocks(state, end, sha256_end(end, inner, SHA256_BLOCK + SHA256_HASH));
  sha256_hash(state, hash);
}

static int hash_slowly(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]) {
  uint8_t inner[SHA256_HASH];
  return ssl.digest_copy(key->digest, key->inner_digest) && ssl.digest_update(key->digest, data, length) && ssl.digest_final(key->digest, inner, NULL) &&
         ssl.digest_copy(key->digest, key->outer_digest) && ssl.digest_update(key->digest, inner, sizeof inner) && ssl.digest_final(key->digest, hash, NULL);
}

int hmac_hash(const struct hmac_key *key, const uint8_t *data, size_t length, uint8_t hash[SHA256_HASH]) {
  if (!key->fast) return hash_slowly(key, data, length, hash);
  uint32_t state[8];
  memcpy(state, key->inner, sizeof state);
  sha256_blocks(state, data, length / SHA256_BLOCK);
  finish(key, state, data + length / SHA256_BLOCK * SHA256_BLOCK, length, hash);
  return 1;
}

/* Goes to the next part that has blocks; 0 when the message is finished. */
static int next_part(struct hmac_message *message) {
  uint8_t inner[SHA256_HASH];
  message->done = 0;
  switch (message->part++) {
    case HMAC_NOTHING:
      memcpy(message->state, message->key->inner, sizeof message->state);
      message->blocks = message->length / SHA256_BLOCK;
      return message->blocks > 0 || next_part(message);
    case HMAC_BODY:
      /* The padded key was a block of its own. */
      message->blocks = sha256_end(message->end, message->data + message->length / SHA256_BLOCK * SHA256_BLOCK, SHA256_BLOCK + message->length);
      return 1;
    case HMAC_END:
      sha256_hash(message->state, inner);
      memcpy(message->state, message->key->outer, sizeof message->state);
      message->blocks = sha256_end(message->end, inner, SHA256_BLOCK + SHA256_HASH);
      return 1;
    default:
      sha256_hash(message->state, message->hash);
      message->part = HMAC_NOTHING;
      return 0;
  }
}

/* Messages side by side: which ones, and where the blocks lie that each goes on with. */
struct side {
  int which[SHA256_LANES], used;
  const uint8_t *data[SHA256_LANES];
};

static const uint8_t *place_of(const struct hmac_message *message) {
  return (message->part == HMAC_BODY ? message->data : message->end) + message->done * SHA256_BLOCK;
}

/* As many blocks as all of them have. */
static size_t shared_blocks(struct hmac_message *const messages[], struct side *side) {
  size_t shared = SIZE_MAX;
  for (int i = 0; i < side->used; i++) {
    const struct hmac_message *message = messages[side->which[i]];
    side->data[i] = place_of(message);
    if (message->blocks - message->done < shared) shared = message->blocks - message->done;
  }
  return shared;
}

/* So many blocks are worth going back to the caller for. */
enum { PATIENCE = 4096 };

static uint32_t advance_side_by_side(struct hmac_message *const messages[], int count) {
  uint32_t finished = 0, *states[SHA256_SIDE_BY_SIDE];
  struct side side = {.used = 0};
  int next = 0;
  for (size_t passed = 0;;) {
    while (side.used < SHA256_SIDE_BY_SIDE && next < count) side.which[side.used++] = next++;
    for (int i = 0; i < side.used; i++) states[i] = messages[side.which[i]]->state;
    size_t blocks = shared_blocks(messages, &side);
    sha256_blocks_side_by_side(states, side.data, side.used, blocks);
    passed += blocks * (size_t)side.used;
    int used = 0;
    for (int i = 0; i < side.used; i++) {
      struct hmac_message *message = messages[side.which[i]];
      message->done += blocks;
      if (message->done < message->blocks || next_part(message)) side.which[used++] = side.which[i];
      else finished |= 1u << side.which[i];
    }
    side.used = used;
    if (finished && (passed >= PATIENCE || used + count - next < SHA256_SIDE_BY_SIDE)) return finished;
  }
}

static void to_lane(uint32_t states[8][SHA256_LANES], int lane, const struct hmac_message *message) {
  for (int i = 0; i < 8; i++) states[i][lane] = message->state[i];
}

static void from_lane(uint32_t states[8][SHA256_LANES], int lane, struct hmac_message *message) {
  for (int i = 0; i < 8; i++) message->state[i] = states[i][lane];
}

static uint32_t advance_in_lanes(struct hmac_message *const messages[], int count, int lanes_from) {
  uint32_t finished = 0, states[8][SHA256_LANES] = {{0}};
  struct side side = {.used = 0};
  int next = 0;
  for (size_t passed = 0;;) {
    for (; side.used < SHA256_LANES && next < count; side.used++, next++) {
      side.which[side.used] = next;
      to_lane(states, side.used, messages[next]);
    }
    size_t blocks = shared_blocks(messages, &side);
    /* What the other lanes make of it nobody looks at. */
    for (int lane = side.used; lane < SHA256_LANES; lane++) side.data[lane] = side.data[0];
    sha256_lanes_blocks(states, side.data, blocks);
    passed += blocks * (size_t)side.used;
    for (int lane = side.used - 1; lane >= 0; lane--) {
      struct hmac_message *message = messages[side.which[lane]];
      message->done += blocks;
      if (message->done < message->blocks) continue;
      from_lane(states, lane, message);
      if (next_part(message)) {
        to_lane(states, lane, message);
        continue;
      }
      finished |= 1u << side.which[lane];
      /* The last one, which was seen to already, takes its place. */
      int last = --side.used;
      side.which[lane] = side.which[last];
      for (int i = 0; i < 8; i++) states[i][lane] = states[i][last];
    }
    if (finished && (passed >= PATIENCE || side.used + count - next < lanes_from)) break;
  }
  for (int lane = 0; lane < side.used; lane++) from_lane(states, lane, messages[side.which[lane]]);
  return finished;
}

uint32_t hmac_advance(struct hmac_message *const messages[], int count, int lanes_from) {
  if (count == 0) return 0;
  if (!messages[0]->key->fast) return hash_slowly(messages[0]->key, messages[0]->data, messages[0]->length, messages[0]->hash) ? 1 : 0;
  for (int i = 0; i < count; i++) {
    if (messages[i]->part == HMAC_NOTHING) next_part(messages[i]);
  }
  return count >= lanes_from && lanes_from <= SHA256_LANES ? advance_in_lanes(messages, count, lanes_from) : advance_side_by_side(messages, count);
}
