/*
 * Random work for the plain C files, to be compiled with AddressSanitizer and UBSan (test/native/fuzz.test.ts): every buffer is exactly
 * as long as its contract says, so a byte read or written beside it ends the run. Results are compared with plain versions.
 *
 *   driver SEED ROUNDS FOLDER SAMPLES      FOLDER: where files may be made; SAMPLES: item streams, each behind its length (uint32le)
 */
#include "../answers.h"
#include "../attributes.h"
#include "../blake2b.h"
#include "../chunker.h"
#include "../crc32.h"
#include "../deletion.h"
#include "../envelope.h"
#include "../lz4.h"
#include "../tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static uint64_t state;

static uint32_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}

static size_t below(size_t limit) { return limit ? next() % limit : 0; }

static void fail(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  exit(1);
}

/* Exactly so long: what lies beside it is poisoned. Few different bytes, so that cuts and zeros are met. */
static uint8_t *random_bytes(size_t length, unsigned kinds) {
  uint8_t *bytes = malloc(length ? length : 1);
  if (!bytes) fail("out of memory");
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)(kinds ? next() % kinds : next());
  return bytes;
}

/* As chunker.md has it: byte by byte. */
static size_t plain_next(const struct chunker_params *p, const uint8_t *data, size_t length, int last) {
  if (length < p->min_size + p->window + 1) return last ? length : 0;
  size_t limit = length >= p->max_size ? p->max_size : length;
  for (size_t at = p->min_size; at + p->window < limit; at++) {
    if ((chunker_hash(p->table, data + at, p->window) & p->mask) == 0) return at;
  }
  return length >= p->max_size || last ? limit : 0;
}

static void chunker_round(void) {
  uint32_t table[256];
  for (int i = 0; i < 256; i++) table[i] = next() * 2654435761u;
  struct chunker_params params = {table, 1 + below(2000), 0, (1u << below(12)) - 1, 1 + below(300)};
  params.max_size = params.min_size + params.window + 1 + below(200000);
  size_t length = below(below(20) ? 5000 : 150000);
  uint8_t *data = random_bytes(length, below(3) ? 0 : 1 + next() % 3);
  int last = (int)below(2);
  size_t cut = chunker_next(&params, data, length, last);
  if (cut > length || (last && length && cut == 0)) fail("a cut outside of the data");
  if (length < 6000 && cut != plain_next(&params, data, length, last)) fail("another cut than the plain chunker's");
  int zero = 1;
  for (size_t i = 0; i < length; i++) zero &= data[i] == 0;
  if (chunker_is_zero(data, length) != zero) fail("zeros were not seen as they are");
  if (length > params.window) {
    uint32_t rolled = chunker_roll(table, chunker_hash(table, data, params.window), data[0], data[params.window], params.window);
    if (rolled != chunker_hash(table, data + 1, params.window)) fail("rolling is not hashing");
  }
  free(data);
}

/* Slots given messages until all are hashed; hashes are compared with those of one message alone. */
static void messages_round(struct envelope *envelope, int hashes_only) {
  enum { MESSAGES = 60 };
  uint8_t *data[MESSAGES];
  size_t lengths[MESSAGES];
  enum envelope_message kinds[MESSAGES];
  int count = 1 + (int)below(MESSAGES);
  for (int i = 0; i < count; i++) {
    kinds[i] = hashes_only || below(2) ? ENVELOPE_ID_OF_PLAINTEXT : ENVELOPE_MAC_OF_OBJECT;
    lengths[i] = (kinds[i] == ENVELOPE_MAC_OF_OBJECT ? ENVELOPE_HEADER : 0) + below(below(4) ? 300 : 20000);
    data[i] = random_bytes(lengths[i], 0);
  }
  int message_of[ENVELOPE_MESSAGES], started = 0, finished = 0;
  for (int slot = 0; slot < ENVELOPE_MESSAGES; slot++) message_of[slot] = -1;
  uint8_t hashes[ENVELOPE_MESSAGES][ENVELOPE_HASH], alone[ENVELOPE_HASH], slots[ENVELOPE_MESSAGES];
  int most = 1 + (int)below(ENVELOPE_MESSAGES);
  envelope_messages_clear(envelope);
  while (finished < count) {
    int used = 0;
    for (int slot = 0; slot < ENVELOPE_MESSAGES; slot++) {
      if (message_of[slot] < 0 && started < count && used < most && (used == 0 || below(8))) message_of[slot] = started++;
      int message = message_of[slot];
      if (message < 0) continue;
      if (!envelope_message(envelope, slot, kinds[message], data[message], lengths[message])) fail("a slot refuses");
      slots[used++] = (uint8_t)slot;
    }
    uint32_t which = envelope_run(envelope, slots, used, hashes);
    if (!which) fail("no slot ran");
    for (int i = 0; i < 32; i++) {
      if (!(which & (1u << i))) continue;
      if (i >= used) fail("an idle slot was finished");
      int message = message_of[slots[i]];
      if (kinds[message] == ENVELOPE_MAC_OF_OBJECT ? !envelope_mac(envelope, data[message], lengths[message], alone)
                                                   : !envelope_id_hash(envelope, data[message], lengths[message], alone)) fail("no hash");
      if (memcmp(alone, hashes[i], ENVELOPE_HASH)) fail("side by side, it is another hash");
      message_of[slots[i]] = -1;
      finished++;
    }
  }
  for (int i = 0; i < count; i++) free(data[i]);
}

static void envelope_round(void) {
  uint8_t *enc = random_bytes(32, 0);
  size_t hmac_length = below(65), id_length = below(65);
  uint8_t *hmac = random_bytes(hmac_length, 0), *id = random_bytes(id_length, 0);
  int hashes_only = below(8) == 0;
  struct envelope *envelope = envelope_new(hashes_only ? NULL : enc, hmac, hmac_length, id, id_length, below(2) ? ENVELOPE_IN_LANES : ENVELOPE_SIDE_BY_SIDE);
  struct envelope *plain = envelope_new(hashes_only ? NULL : enc, hmac, hmac_length, id, id_length, ENVELOPE_BY_OPENSSL);
  if (!envelope || !plain) fail("no envelope: OpenSSL was not found");
  size_t head_length = below(8), length = below(below(8) ? 500 : 70000);
  uint8_t *head = random_bytes(head_length, 0), *data = random_bytes(length, 0);
  size_t object_length = ENVELOPE_HEADER + head_length + length;
  uint8_t *object = random_bytes(object_length, 1), *payload = random_bytes(head_length + length, 1), hash[ENVELOPE_HASH], mac[ENVELOPE_HASH];
  if (!envelope_id_hash(envelope, data, length, hash) || !envelope_id_hash(plain, data, length, mac)) fail("no hash");
  if (memcmp(hash, mac, sizeof mac)) fail("another hash than OpenSSL's");
  int sealed = envelope_encrypt(envelope, 3, next(), head, head_length, data, length, object);
  if (sealed == hashes_only) fail("sealing");
  if (sealed) {
    if (!envelope_mac(envelope, object, object_length, object + ENVELOPE_MAC) || !envelope_mac(plain, object, object_length, mac)) fail("no MAC");
    if (memcmp(mac, object + ENVELOPE_MAC, sizeof mac)) fail("another MAC than OpenSSL's");
    if (envelope_decrypt(envelope, object, object_length, mac, payload) != 1 || memcmp(payload, head, head_length) || memcmp(payload + head_length, data, length)) fail("opened, it is another payload");
    size_t at = 1 + below(object_length - 1);
    object[at] ^= (uint8_t)(1u << below(8));
    memset(payload, 0, head_length + length);
    if (!envelope_mac(envelope, object, object_length, mac) || envelope_decrypt(envelope, object, object_length, mac, payload) != -1) fail("a changed object was opened");
    for (size_t i = 0; i < head_length + length; i++) if (payload[i]) fail("what is not authentic was decrypted");
  } else if (envelope_mac(envelope, object, object_length, mac)) fail("a MAC without a key");
  /* Wherever it is divided, it is the same message. */
  size_t divided = below(length + 1);
  blake2b_256(data, 0, data, length, hash);
  blake2b_256(data, divided, data + divided, length - divided, mac);
  if (memcmp(hash, mac, sizeof mac)) fail("BLAKE2b of two parts is another hash");
  messages_round(envelope, hashes_only);
  messages_round(plain, hashes_only);
  envelope_free(envelope);
  envelope_free(plain);
  free(enc); free(hmac); free(id); free(head); free(data); free(object); free(payload);
}

/* Bit by bit. */
static uint32_t plain_crc(uint32_t crc, const uint8_t *data, size_t length) {
  crc = ~crc;
  for (size_t i = 0; i < length; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
  }
  return ~crc;
}

static void crc_round(void) {
  size_t length = below(below(4) ? 200 : 5000), before = below(length + 1);
  uint8_t *data = random_bytes(length, 0);
  uint32_t whole = crc32_update(0, data, length);
  if (whole != plain_crc(0, data, length)) fail("another CRC than the plain one");
  if (crc32_update(crc32_update(0, data, before), data + before, length - before) != whole) fail("a CRC in two parts is another one");
  free(data);
}

/* Names and values of any length that the file system takes. */
static void attributes_round(const char *folder) {
  char path[4096], name[300];
  snprintf(path, sizeof path, "%s/file", folder);
  unlink(path);
  int fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);
  if (fd < 0) fail("the folder cannot be written to");
  size_t set = 0, expected = 0;
  for (size_t count = below(12); count > 0; count--) {
    size_t name_length = 1 + below(249), value_length = below(below(4) ? 300 : 3000);
    memcpy(name, "user.", 5);
    for (size_t i = 0; i < name_length; i++) name[5 + i] = (char)(1 + next() % 255);
    name[5 + name_length] = 0;
    uint8_t *value = random_bytes(value_length, 0);
    if (fsetxattr(fd, name, value, value_length, XATTR_CREATE) == 0) {
      set++;
      expected += 2 + strlen(name) + 4 + value_length;
    }
    free(value);
  }
  int64_t row[ATTRIBUTE_ROW];
  if (attributes_stat(fd, "", WANT_FS_FLAGS, row) != 0 || attributes_stat(AT_FDCWD, path, 7, row) != 0) fail("stat");
  if (attributes_stat(AT_FDCWD, "/does/not/exist", 7, row) != ENOENT || row[ATTRIBUTE_ERROR] != ENOENT) fail("stat of nothing");
  struct packed out = {NULL, 0, 0};
  if (attributes_xattrs(path, WANT_XATTRS, &out) != 0) fail("xattrs");
  if (out.length < expected) fail("an xattr is missing");
  size_t at = 0, seen = 0;
  for (; at < out.length; seen++) {
    at += 2 + (size_t)(out.data[at] | out.data[at + 1] << 8);
    at += 4 + (size_t)(out.data[at] | out.data[at + 1] << 8 | out.data[at + 2] << 16 | (uint32_t)out.data[at + 3] << 24);
  }
  if (at != out.length || seen < set) fail("the packed xattrs do not add up");
  free(out.data);
  close(fd);
  unlink(path);
}

/* --- item streams --- */

static struct sample {
  const uint8_t *bytes;
  size_t length;
} samples[256];
static size_t sample_count;

static void load_samples(const char *path) {
  static uint8_t all[1 << 20];
  FILE *file = fopen(path, "rb");
  if (!file) fail("the samples cannot be read");
  size_t length = fread(all, 1, sizeof all, file);
  fclose(file);
  for (size_t at = 0; at + 4 <= length && sample_count < 256;) {
    size_t size = (size_t)all[at] | (size_t)all[at + 1] << 8 | (size_t)all[at + 2] << 16;
    at += 4;
    if (size > length - at) fail("the samples are cut off");
    samples[sample_count++] = (struct sample){all + at, size};
    at += size;
  }
  if (!sample_count) fail("no samples");
}

/* Every byte of what is told is looked at. */
static int left_out(void *context, struct span path, const struct span *source) {
  unsigned *sum = context;
  for (size_t i = 0; i < path.length; i++) *sum += path.data[i];
  for (size_t i = 0; source && i < source->length; i++) *sum += source->data[i];
  return *sum % 1000 == 999 ? -1 : 0;
}

static void tree_round(void) {
  unsigned sum = 0;
  struct tree_options options = {(int)below(2), {next(), next()}};
  struct tree_calls calls = {&sum, left_out};
  struct tree *tree = tree_new(&options, &calls);
  if (!tree) fail("no tree");
  int status = ITEM_OK;
  for (size_t streams = 1 + below(6); streams > 0 && (status == ITEM_OK || status == ITEM_TRUNCATED); streams--) {
    const struct sample *sample = &samples[below(sample_count)];
    const struct sample *other = &samples[below(sample_count)];
    /* The first part of one, then the end of another, in memory that ends where they end. */
    size_t head = below(3) ? sample->length : below(sample->length + 1), tail = below(4) ? 0 : below(other->length + 1);
    uint8_t *bytes = malloc(head + tail + 1);
    if (!bytes) fail("out of memory");
    memcpy(bytes, sample->bytes, head);
    memcpy(bytes + head, other->bytes + other->length - tail, tail);
    size_t length = head + tail;
    for (size_t changes = below(6); changes > 0 && length > 0; changes--) {
      static const uint8_t interesting[] = {0, 1, 0x2e, 0x2f, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc4, 0xc6, 0xcf, 0xd3, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff};
      bytes[below(length)] = below(2) ? interesting[below(sizeof interesting)] : (uint8_t)next();
    }
    uint8_t *exact = malloc(length ? length : 1);
    if (!exact) fail("out of memory");
    memcpy(exact, bytes, length);
    size_t used;
    status = tree_add(tree, exact, length, &used);
    if (used > length) fail("more bytes used than given");
    free(exact);
    free(bytes);
  }
  if (status == ITEM_OK || status == ITEM_TRUNCATED) {
    struct tree_layout layout;
    if (tree_layout(tree, &layout) != ITEM_OK) fail("out of memory");
    uint8_t *image = malloc(layout.bytes ? layout.bytes : 1), *chunks = malloc(layout.chunks * 40 + 1);
    if (!image || !chunks) fail("out of memory");
    tree_write(tree, &layout, image, chunks);
    free(image);
    free(chunks);
  }
  tree_free(tree);
}

/* Ids entered into a table, packed, unpacked, taken out again; and the packed bytes cut off and changed. */
static void deletion_round(void) {
  size_t ids_count = below(60), buckets_count = ids_count + 1 + below(40), bucket_bytes = DELETION_ID_BYTES + 4;
  struct bucket_table table = {malloc(buckets_count * bucket_bytes), buckets_count, 1};
  if (!table.buckets) fail("out of memory");
  memset(table.buckets, 0xff, buckets_count * bucket_bytes);
  uint8_t *ids = random_bytes(ids_count * DELETION_ID_BYTES, 0);
  uint32_t *words = (uint32_t *)random_bytes(ids_count * 4, 0), *known = malloc(ids_count * 4 + 1);
  for (size_t i = 0; i < ids_count; i++) words[i] >>= 1 + below(31);
  size_t emptied, entries, bytes;
  if (deletion_enter(table, ids, ids_count, words, 1, known, &emptied) != 0 || emptied != ids_count) fail("an id was there already");

  uint8_t *room = malloc(ids_count * DELETION_PACKED_BYTES + 1);
  size_t length = deletion_pack(table, 0xfffffffe, room, &entries);
  if (entries != ids_count) fail("not all were packed");
  uint8_t *packed = random_bytes(length, 0), *again = malloc(ids_count * DELETION_ID_BYTES + 1);
  uint32_t *word_again = malloc(ids_count * 4 + 1);
  memcpy(packed, room, length);
  if (deletion_unpack(packed, length, ids_count, again, word_again, &bytes) != ids_count || bytes != length) fail("not all were unpacked");
  /* Exactly as long as what is left of it. */
  size_t cut = below(length + 1);
  uint8_t *part = random_bytes(cut, 0);
  memcpy(part, packed, cut);
  for (int change = below(4); change > 0 && cut > 0; change--) part[below(cut)] = (uint8_t)next();
  if (deletion_unpack(part, cut, ids_count, again, word_again, &bytes) > ids_count || bytes > cut) fail("more than there was");

  uint8_t *framed = malloc(ids_count * DELETION_ENTRY_BYTES + 1);
  deletion_frame(ids, ids_count, framed);
  if (deletion_take_out(table, ids, ids_count, word_again) != ids_count || memcmp(words, word_again, ids_count * 4) != 0) fail("other words came out");
  if (deletion_take_out(table, ids, ids_count, word_again) != 0) fail("taken out twice");
  free(framed), free(part), free(word_again), free(again), free(packed), free(room), free(known), free(words), free(ids), free(table.buckets);
}

static struct column any_column(size_t count, size_t width, uint32_t limit) {
  /* Also too short ones. */
  if (below(30) == 0) count = below(count + 1);
  uint8_t *values = random_bytes(count * width, 0);
  for (size_t i = 0; i < count; i++) {
    uint32_t value = below(40) ? (uint32_t)below(limit) : next();
    if (width == 4) memcpy(values + 4 * i, &value, 4);
    if (width == 2) memcpy(values + 2 * i, (uint16_t[]){(uint16_t)value}, 2);
  }
  struct column made = {values, count};
  return made;
}

/* A tree as no builder makes it, and requests as no kernel sends them. */
static void answers_round(void) {
  struct shown_tree t = {0};
  size_t rows = 1 + below(30), names = below(300), accesses = 1 + below(5), marked = below(5);
  t.base = below(2) ? 1 : (uint64_t)16 << 32;
  double references = 0;
  t.above = 1;
  t.references = &references;
  t.rows = rows;
  t.narrow_access = below(2);
  t.bare = below(2);
  struct column *four[] = {&t.parent, &t.first, &t.count, &t.next_sibling};
  for (size_t i = 0; i < sizeof four / sizeof *four; i++) *four[i] = any_column(rows, 4, (uint32_t)rows);
  t.name_start = any_column(rows + 1, 4, (uint32_t)names + 1);
  t.access = any_column(rows, t.narrow_access ? 2 : 4, (uint32_t)accesses);
  t.flags = any_column(rows, 1, 256);
  struct column *eight[] = {&t.size, &t.mtime, &t.atime, &t.ctime};
  for (size_t i = 0; i < sizeof eight / sizeof *eight; i++) *eight[i] = any_column(rows, 8, 1);
  t.names = any_column(names, 1, 256);
  t.blobs = any_column(below(300), 1, 256);
  t.slots = any_column((size_t)1 << below(7), 4, (uint32_t)rows + 1);
  t.key = (struct name_key){next(), next()};
  t.xattr_row = any_column(marked, 4, (uint32_t)rows);
  t.linked_row = any_column(marked, 4, (uint32_t)rows);
  t.linked_count = any_column(marked, 4, 9);
  struct column *access[] = {&t.modes, &t.uids, &t.gids};
  for (size_t i = 0; i < 3; i++) *access[i] = any_column(accesses, 4, 0xffff);
  static const uint32_t modes[] = {0040755, 0100644, 0120777, 0020600}, codes[] = {1, 2, 3, 5, 22, 23, 27, 28, 29, 44, 42, 15};
  for (size_t i = 0; i < t.modes.count; i++) memcpy((uint8_t *)t.modes.values + 4 * i, &modes[below(4)], 4);
  static const char *const names_asked[] = {"system.posix_acl_access", "security.selinux", "user.borgfs.x", "user.a", ""};
  for (int requests = 0; requests < 20; requests++) {
    size_t room = 8192 + below(100), length = below(20) ? 40 + below(60) : below(40);
    uint8_t *slot = random_bytes(room, 0);
    uint32_t code = codes[below(sizeof codes / sizeof *codes)];
    uint64_t node = t.base + below(rows + 2), cookie = below(rows + 4), fh = below(2);
    uint32_t wanted = (uint32_t)below(below(3) ? 9000 : 200);
    memcpy(slot + 4, &code, 4);
    memcpy(slot + 16, &node, 8);
    memcpy(slot + 40, &fh, 8);
    memcpy(slot + 48, &cookie, 8);
    memcpy(slot + 56, &wanted, 4);
    if (code == 22) strcpy((char *)slot + 48, names_asked[below(5)]);
    size_t found = 0;
    int marks = asks_for_marks(slot, length);
    long reply = tree_answer(&t, slot, length, slot, room, (unsigned)below(4), &found);
    if (reply < ANSWER_NONE || reply > (long)room || (marks && code != 22)) fail("an answer of no length");
    tree_is_small(&t, node);
    free(slot);
  }
  struct column *all[] = {&t.parent, &t.first, &t.count, &t.next_sibling, &t.name_start, &t.access, &t.flags, &t.size, &t.mtime, &t.atime, &t.ctime, &t.names, &t.blobs, &t.slots, &t.xattr_row, &t.linked_row, &t.linked_count, &t.modes, &t.uids, &t.gids};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((void *)all[i]->values);
}

/* As compression.md has it: byte by byte. */
static ptrdiff_t plain_lz4(const uint8_t *from, size_t length, uint8_t *to, size_t room) {
  size_t at = 0, out = 0;
  for (;;) {
    if (at == length) return -1;
    unsigned token = from[at++];
    size_t counts[] = {token >> 4, token & 15};
    for (int part = 0; part < 2; part++) {
      size_t offset = 0;
      if (part) {
        if (length - at < 2) return -1;
        offset = (size_t)from[at] | (size_t)from[at + 1] << 8;
        at += 2;
        if (!offset || offset > out) return -1;
      }
      if (counts[part] == 15) {
        do {
          if (at == length) return -1;
          counts[part] += from[at];
        } while (from[at++] == 255);
      }
      for (size_t left = counts[part] + (part ? 4 : 0); left > 0; left--, out++) {
        if (out == room || (!part && at == length)) return -1;
        to[out] = part ? to[out - offset] : from[at++];
      }
      if (!part && at == length) return (ptrdiff_t)out;
    }
  }
}

static size_t put_length(uint8_t *block, size_t at, size_t count) {
  if (count < 15) return at;
  for (count -= 15; count >= 255; count -= 255) block[at++] = 255;
  block[at++] = (uint8_t)count;
  return at;
}

/* What is decoded into exactly so much memory is what the plain decoder says, and so is what is refused. */
static void same_as_plain(const uint8_t *block, size_t length, size_t room) {
  uint8_t *exact = random_bytes(length, 1), *wanted = random_bytes(room, 1), *found = random_bytes(room, 1);
  memcpy(exact, block, length);
  ptrdiff_t bytes = plain_lz4(exact, length, wanted, room);
  if (lz4_decode(exact, length, found, room) != bytes) fail("lz4: another answer than the plain one");
  if (bytes > 0 && memcmp(wanted, found, (size_t)bytes) != 0) fail("lz4: other bytes than the plain ones");
  free(found), free(wanted), free(exact);
}

/* Blocks that an encoder may make, of sequences of all shapes: counts around those that are told in another way or copied in another way, near and
   far offsets, room to spare or none. */
static void lz4_block_round(void) {
  enum { MOST = 1 << 18 };
  static uint8_t block[MOST + 70000];
  static const size_t counts[] = {0, 1, 4, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 19, 31, 32, 33, 63, 64, 65, 250, 256, 257, 269, 270, 273, 274, 524, 525};
  size_t length = 0, out = 0, sequences = 1 + below(below(3) ? 12 : 300);
  int far = below(8) == 0;
  for (size_t i = 0; i < sequences; i++) {
    size_t literals = below(3) ? below(15) : below(3) ? counts[below(sizeof counts / sizeof *counts)] : below(far ? 60000 : 600);
    size_t match = below(3) ? below(15) : below(3) ? counts[below(sizeof counts / sizeof *counts)] : below(1000);
    if (out == 0 && literals == 0) literals = 1;
    if (length + literals > MOST) break;
    block[length++] = (uint8_t)((literals < 15 ? literals : 15) << 4 | (match < 15 ? match : 15));
    length = put_length(block, length, literals);
    for (size_t j = 0; j < literals; j++) block[length++] = (uint8_t)next();
    out += literals;
    size_t reach = out < 65535 ? out : 65535, offset = 1 + below(below(4) && reach > 70 ? 70 : reach);
    block[length++] = (uint8_t)offset;
    block[length++] = (uint8_t)(offset >> 8);
    length = put_length(block, length, match);
    out += match + 4;
  }
  size_t last = below(2) ? below(40) : 0;
  block[length++] = (uint8_t)((last < 15 ? last : 15) << 4);
  length = put_length(block, length, last);
  for (size_t j = 0; j < last; j++) block[length++] = (uint8_t)next();
  out += last;
  if (lz4_plain_length(block, length, out) != (ptrdiff_t)out) fail("lz4: another length than was made");
  same_as_plain(block, length, out);
  same_as_plain(block, length, out + below(100));
  same_as_plain(block, length, out - below(below(2) ? 70 : out + 1) % (out + 1));
  /* Cut off, and changed: most of all tokens and offsets decide. */
  same_as_plain(block, length - below(below(2) ? 60 : length + 1) % (length + 1), out);
  for (int change = 1 + (int)below(3); change > 0; change--) block[below(length)] = (uint8_t)(below(3) ? next() : below(2) ? 255 : 0);
  same_as_plain(block, length, out + below(64));
}

static void lz4_round(void) {
  size_t length = below(below(10) ? 2000 : 200000);
  uint8_t *data = random_bytes(length, below(3) ? 1 + next() % 4 : 0);
  for (size_t runs = below(5); runs > 0 && length > 100; runs--) memmove(data + below(length / 2), data + below(length / 2), below(length / 2));
  size_t room = below(4) ? length + length / 255 + 16 : below(length + 1);
  uint8_t *packed = random_bytes(room, 1);
  ptrdiff_t bytes = lz4_encode(data, length, packed, room);
  if (bytes > (ptrdiff_t)room || (bytes < 0 && room >= length + length / 255 + 16)) fail("lz4_encode: no room");
  if (bytes >= 0) {
    uint8_t *exact = random_bytes((size_t)bytes, 1), *again = random_bytes(length, 1);
    memcpy(exact, packed, (size_t)bytes);
    if (lz4_plain_length(exact, (size_t)bytes, length) != (ptrdiff_t)length || (length && lz4_plain_length(exact, (size_t)bytes, length - 1) != -1)) fail("lz4: another length");
    if (lz4_decode(exact, (size_t)bytes, again, length) != (ptrdiff_t)length || (length && memcmp(again, data, length) != 0)) fail("lz4: not what it was");
    /* Changed and cut off: nothing is decoded that has another length than it said. */
    size_t part = below((size_t)bytes + 1);
    uint8_t *bad = random_bytes(part, 0);
    memcpy(bad, exact, part);
    for (int change = below(4); change > 0 && part > 0; change--) bad[below(part)] = (uint8_t)(below(2) ? 255 : next());
    ptrdiff_t said = lz4_plain_length(bad, part, 2 * length), decoded = -1;
    if (said > (ptrdiff_t)(2 * length)) fail("lz4: a length above the most");
    if (said >= 0) {
      uint8_t *room_for_it = random_bytes((size_t)said, 1);
      decoded = lz4_decode(bad, part, room_for_it, (size_t)said);
      free(room_for_it);
    }
    if (decoded != -1 && decoded != said) fail("lz4: not the length that it said");
    free(bad);
    free(exact);
    free(again);
  }
  free(packed);
  free(data);
}

int main(int argc, char **argv) {
  if (argc < 5) fail("SEED ROUNDS FOLDER SAMPLES");
  load_samples(argv[4]);
  state = strtoull(argv[1], NULL, 10) * 2 + 1;
  long rounds = strtol(argv[2], NULL, 10);
  for (long round = 0; round < rounds; round++) {
    chunker_round();
    envelope_round();
    crc_round();
    deletion_round();
    for (int trees = 0; trees < 8; trees++) tree_round();
    answers_round();
    lz4_round();
    for (int blocks = 0; blocks < 2; blocks++) lz4_block_round();
    if (round % 8 == 0) attributes_round(argv[3]);
  }
  printf("%ld rounds\n", rounds);
  return 0;
}
