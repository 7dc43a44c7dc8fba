/* tree.c for JavaScript. A tree is an external value that belongs to the thread that made it. */
#include "arguments.h"
#include "tree.h"

#include <string.h>

namespace {

napi_value failed(napi_env env, const char *what) {
  napi_throw_error(env, nullptr, what);
  return nullptr;
}

/* What JavaScript asked treeAdd with: (isGroup, name) -> number | undefined, (text) -> bytes | undefined, (path, source | undefined). */
struct Calls {
  napi_env env;
  napi_value owner, acl, leftOut;

  bool call(napi_value function, size_t count, const napi_value *values, napi_value *result) const {
    napi_value receiver;
    napi_get_undefined(env, &receiver);
    return napi_call_function(env, receiver, function, count, values, result) == napi_ok;
  }
  napi_value buffer(span bytes) const { return makeBuffer(env, bytes.data, bytes.length); }
};

struct Tree {
  tree *made = nullptr;
  const Calls *calls = nullptr;
  ~Tree() {
    if (made) tree_free(made);
  }
};

const Calls &callsOf(void *context) { return *static_cast<Tree *>(context)->calls; }

int owner(void *context, int isGroup, span name, uint32_t *number) {
  const Calls &calls = callsOf(context);
  napi_value values[2], result;
  napi_get_boolean(calls.env, isGroup != 0, &values[0]);
  values[1] = calls.buffer(name);
  if (!calls.call(calls.owner, 2, values, &result)) return -1;
  return napi_get_value_uint32(calls.env, result, number) == napi_ok;
}

int acl(void *context, span text, span *binary) {
  const Calls &calls = callsOf(context);
  napi_value value = calls.buffer(text), result;
  if (!calls.call(calls.acl, 1, &value, &result)) return -1;
  void *data;
  size_t length;
  bool isBuffer = false;
  napi_is_buffer(calls.env, result, &isBuffer);
  if (!isBuffer || napi_get_buffer_info(calls.env, result, &data, &length) != napi_ok) return 0;
  *binary = {static_cast<uint8_t *>(data), length};
  return 1;
}

int leftOut(void *context, span path, const span *source) {
  const Calls &calls = callsOf(context);
  napi_value values[2] = {calls.buffer(path), source ? calls.buffer(*source) : makeUndefined(calls.env)}, result;
  return calls.call(calls.leftOut, 2, values, &result) ? 0 : -1;
}

Tree *treeOf(Arguments &a) {
  void *data = nullptr;
  if (napi_get_value_external(a.env, a.value(0), &data) != napi_ok || !data || !static_cast<Tree *>(data)->made) {
    napi_throw_type_error(a.env, nullptr, "a tree that is not finished is wanted");
    return nullptr;
  }
  return static_cast<Tree *>(data);
}

/* (uid, gid, timeNs, rootTimeNs, forcedUid or -1, forcedGid or -1, umask, numericIds, showParts) */
napi_value makeTree(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  tree_options options{};
  options.uid = static_cast<uint32_t>(a.integer(0));
  options.gid = static_cast<uint32_t>(a.integer(1));
  options.time_ns = a.bigint(2);
  options.root_time_ns = a.bigint(3);
  options.forced_uid = a.integer(4);
  options.forced_gid = a.integer(5);
  options.umask = static_cast<uint32_t>(a.integer(6));
  options.numeric_ids = a.flag(7);
  options.show_parts = a.flag(8);
  if (a.failed) return nullptr;
  Tree *tree = new Tree;
  tree_calls calls = {tree, owner, acl, leftOut};
  tree->made = tree_new(&options, &calls);
  napi_value external;
  if (!tree->made || napi_create_external(env, tree, [](napi_env, void *data, void *) { delete static_cast<Tree *>(data); }, nullptr, &external) != napi_ok) {
    delete tree;
    return failed(env, "no memory for a tree");
  }
  return external;
}

/* (tree, bytes, owner, acl, leftOut): bytes of whole items that were added, or -1 if what follows those is no item. */
napi_value treeAdd(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes bytes = a.bytes(1);
  Tree *tree = treeOf(a);
  if (a.failed || !tree) return nullptr;
  Calls calls = {env, a.value(2), a.value(3), a.value(4)};
  size_t used;
  tree->calls = &calls;
  int status = tree_add(tree->made, bytes.data, bytes.length, &used);
  tree->calls = nullptr;
  switch (status) {
    case ITEM_OK: case ITEM_TRUNCATED: return makeNumber(env, static_cast<double>(used));
    case ITEM_INVALID: return makeNumber(env, -1);
    case TREE_CALL: return nullptr;
    case TREE_FULL: return failed(env, "an archive with more than 2^32 files, chunks, or bytes of names cannot be shown");
    default: return failed(env, "no memory for an archive's files");
  }
}

/* (tree, layout): the image; layout (float64) gets rows, chunks, then offset and bytes of each column. */
napi_value treeFinish(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes into = a.bytes(1);
  Tree *tree = treeOf(a);
  if (a.failed || !tree) return nullptr;
  struct tree_layout layout;
  double values[2 + 2 * TREE_COLUMNS];
  if (into.length != sizeof values) return failed(env, "a layout of another length");
  tree_layout(tree->made, &layout);
  void *image;
  napi_value buffer;
  if (napi_create_arraybuffer(env, layout.bytes, &image, &buffer) != napi_ok) return failed(env, "no memory for an archive's files");
  tree_write(tree->made, &layout, static_cast<uint8_t *>(image));
  values[0] = static_cast<double>(layout.rows);
  values[1] = static_cast<double>(layout.chunks);
  for (int c = 0; c < TREE_COLUMNS; c++) {
    values[2 + 2 * c] = static_cast<double>(layout.offset[c]);
    values[3 + 2 * c] = static_cast<double>(layout.length[c]);
  }
  memcpy(into.data, values, sizeof values);
  tree_free(tree->made);
  tree->made = nullptr;
  return buffer;
}

}  // namespace

void registerTree(napi_env env, napi_value exports) {
  defineFunction(env, exports, "makeTree", makeTree);
  defineFunction(env, exports, "treeAdd", treeAdd);
  defineFunction(env, exports, "treeFinish", treeFinish);
}
