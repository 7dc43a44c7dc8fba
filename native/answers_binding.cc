/* answers.c for JavaScript: which trees the thread shows, and in which manner whom. */
#include "answers_binding.h"
#include "arrivals_binding.h"
#include "arguments.h"
#include "askers.h"

#include <string.h>

#include <unordered_map>

namespace {

struct Header {
  uint32_t length, opcode;
  uint64_t unique, node;
  uint32_t uid, gid, pid, padding;
};

struct Shown {
  shown_tree tree;
  /* What the pointers are into: the columns, the two numbers, what was handed out, and the references. */
  napi_ref kept[6];
  double *lastUse, *clock;
};

/* By the upper half of inode numbers, which each archive has its own of. */
thread_local std::unordered_map<uint64_t, Shown> shownTrees;
thread_local Askers askers;

Shown *treeOf(uint64_t node) {
  auto found = shownTrees.find(node >> 32);
  if (found == shownTrees.end()) return nullptr;
  const shown_tree &tree = found->second.tree;
  return node >= tree.base && node - tree.base < tree.rows ? &found->second : nullptr;
}

enum { LOOKUP = 1, GETXATTR = 22, OPENDIR = 27, READDIRPLUS = 44, BATCH_FORGET = 42, ROOT_NODE = 1, FORGET_COUNT = 40, FORGET_ITEMS = 48, FORGET_ITEM = 16 };

/* Calls `each` with the tree of what is forgotten, NULL for others, and how often it is; until that is false. */
template <typename Each> bool forEachForgotten(const uint8_t *slot, size_t length, Each each) {
  uint32_t count;
  memcpy(&count, slot + FORGET_COUNT, sizeof count);
  for (size_t i = 0, at = FORGET_ITEMS; i < count && at + FORGET_ITEM <= length; i++, at += FORGET_ITEM) {
    uint64_t item[2];
    memcpy(item, slot + at, sizeof item);
    if (!each(treeOf(item[0]), item[1])) return false;
  }
  return true;
}

/* All of it or nothing: if it is not about trees alone, the others are told of all. */
bool forgottenByTrees(const uint8_t *slot, size_t length) {
  if (!forEachForgotten(slot, length, [](Shown *shown, uint64_t) { return shown != nullptr; })) return false;
  return forEachForgotten(slot, length, [](Shown *shown, uint64_t times) {
    *shown->tree.references -= static_cast<double>(times);
    return true;
  });
}

/* A typed array of exactly this kind. */
bool readColumn(napi_env env, napi_value columns, uint32_t index, napi_typedarray_type wanted, column *into) {
  napi_value array, buffer;
  napi_typedarray_type type;
  size_t length = 0, offset = 0;
  void *data = nullptr;
  if (napi_get_element(env, columns, index, &array) != napi_ok || napi_get_typedarray_info(env, array, &type, &length, &data, &buffer, &offset) != napi_ok || type != wanted) return false;
  *into = {data, length};
  return true;
}

const size_t keptArguments[] = {2, 7, 8, 10, 11, 12};

void forget(napi_env env, Shown &shown) {
  for (napi_ref &each : shown.kept)
    if (each) napi_delete_reference(env, each);
}

/* False, and nothing kept, if one of them cannot be. */
bool keep(napi_env env, const Arguments &a, Shown &made) {
  for (size_t i = 0; i < sizeof made.kept / sizeof *made.kept; i++) {
    if (napi_create_reference(env, a.value(keptArguments[i]), 1, &made.kept[i]) == napi_ok) continue;
    made.kept[i] = nullptr;
    forget(env, made);
    return false;
  }
  return true;
}

/* (root, above, columns, suppliedTimeNs, rootTimeNs, ttlSeconds, bare, lastUse, clock, generation, handed, handedOpens, references) */
napi_value showTree(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Shown made{};
  shown_tree &tree = made.tree;
  tree.base = static_cast<uint64_t>(a.integer(0));
  tree.above = static_cast<uint64_t>(a.integer(1));
  tree.supplied_ns = a.bigint(3);
  tree.root_ns = a.bigint(4);
  tree.ttl_seconds = static_cast<uint32_t>(a.integer(5));
  tree.bare = a.flag(6);
  Bytes lastUse = a.bytes(7), clock = a.bytes(8);
  tree.generation = static_cast<uint64_t>(a.integer(9));
  Bytes handed = a.bytes(10), handedOpens = a.bytes(11), references = a.bytes(12);
  if (a.failed) return nullptr;
  const napi_typedarray_type u8 = napi_uint8_array, u32 = napi_uint32_array, i64 = napi_bigint64_array;
  column key{};
  const struct { column *into; napi_typedarray_type type; } columns[] = {
      {&tree.parent, u32}, {&tree.name_start, u32}, {&tree.first, u32}, {&tree.count, u32}, {&tree.next_sibling, u32}, {&tree.access, u32}, {&tree.flags, u8},
      {&tree.size, napi_float64_array}, {&tree.mtime, i64}, {&tree.atime, i64}, {&tree.ctime, i64}, {&tree.names, u8}, {&tree.blobs, u8}, {&tree.slots, u32},
      {&tree.xattr_row, u32}, {&tree.linked_row, u32}, {&tree.linked_count, u32}, {&tree.modes, u32}, {&tree.uids, u32}, {&tree.gids, u32}, {&key, u32}};
  bool complete = lastUse.length == 8 && clock.length == 8 && handedOpens.length == 8 && references.length == 8;
  for (uint32_t i = 0; complete && i < sizeof columns / sizeof *columns; i++) {
    complete = readColumn(env, a.value(2), i, columns[i].type, columns[i].into);
    /* 16 bits where these suffice. */
    if (!complete && columns[i].into == &tree.access) {
      tree.narrow_access = readColumn(env, a.value(2), i, napi_uint16_array, &tree.access);
      complete = tree.narrow_access;
    }
  }
  tree.rows = tree.parent.count;
  complete = complete && key.count * 4 == sizeof tree.key;
  if (!complete || handed.length != tree.rows || tree.slots.count == 0 || (tree.slots.count & (tree.slots.count - 1)) != 0 || shownTrees.count(tree.base >> 32) || !keep(env, a, made)) {
    napi_throw_type_error(env, nullptr, "the columns of a tree that is not shown yet are wanted");
    return nullptr;
  }
  memcpy(&tree.key, key.values, sizeof tree.key);
  made.lastUse = reinterpret_cast<double *>(lastUse.data);
  made.clock = reinterpret_cast<double *>(clock.data);
  made.tree.handed = handed.data;
  made.tree.handed_opens = reinterpret_cast<double *>(handedOpens.data);
  made.tree.references = reinterpret_cast<double *>(references.data);
  shownTrees.emplace(tree.base >> 32, made);
  return makeUndefined(env);
}

/* (root) */
napi_value hideTree(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  uint64_t range = static_cast<uint64_t>(a.integer(0)) >> 32;
  if (a.failed) return nullptr;
  auto found = shownTrees.find(range);
  if (found != shownTrees.end()) {
    forget(env, found->second);
    shownTrees.erase(found);
  }
  return makeUndefined(env);
}

/* (slot, length): what receiveRequest does with a request that it received, without a device. */
napi_value answerRequest(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes slot = a.bytes(0);
  int64_t length = a.integer(1);
  if (a.failed) return nullptr;
  if (length < 0 || static_cast<size_t>(length) > slot.length) return makeNumber(env, 0);
  return makeNumber(env, static_cast<double>(answerHere(slot.data, static_cast<size_t>(length), slot.length)));
}

}  // namespace

/* How this request is to be answered: what is known of who asks. */
static unsigned mannerFor(const Header &header, const shown_tree &tree, const uint8_t *slot, size_t length) {
  switch (header.opcode) {
    case GETXATTR:
      return tree.bare && asks_for_marks(slot, length) && askers.mayTell(header.pid, header.uid, tree.base) ? ANSWER_NO_MARKS : 0;
    case OPENDIR:
      return askers.readsNamesOnly(header.pid, tree_is_small(&tree, header.node)) ? ANSWER_NAMES_ONLY : 0;
    case READDIRPLUS:
      return askers.looksUp(header.pid) ? 0 : ANSWER_NAMES_ONLY;
    default: return 0;
  }
}

long answerByTree(uint8_t *slot, size_t length, size_t room) {
  Header header;
  if (length < sizeof header || shownTrees.empty()) return ANSWER_OTHER;
  memcpy(&header, slot, sizeof header);
  if (header.opcode == BATCH_FORGET) return length >= FORGET_ITEMS && forgottenByTrees(slot, length) ? ANSWER_NONE : ANSWER_OTHER;
  Shown *shown = treeOf(header.node);
  if (!shown) {
    if (header.node == ROOT_NODE && header.opcode == OPENDIR) askers.listsArchives(header.pid);
    return ANSWER_OTHER;
  }
  *shown->lastUse = *shown->clock += 1;
  size_t names = 0;
  long reply = tree_answer(&shown->tree, slot, length, slot, room, mannerFor(header, shown->tree, slot, length), &names);
  if (header.opcode == LOOKUP && names) askers.lookedUp(header.pid);
  else if (names) askers.tookNames(header.pid, names);
  return reply;
}

void registerAnswers(napi_env env, napi_value exports) {
  defineFunction(env, exports, "showTree", showTree);
  defineFunction(env, exports, "hideTree", hideTree);
  defineFunction(env, exports, "answerRequest", answerRequest);
}
