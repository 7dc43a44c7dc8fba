/* tree.c for JavaScript. A tree is an external value that belongs to the thread that made it. */
#include "arguments.h"
#include "tree.h"

#include <string.h>

namespace {

napi_value failed(napi_env env, const char *what) {
  napi_throw_error(env, nullptr, what);
  return nullptr;
}

/* What JavaScript asked treeAdd with: (path, source | undefined). */
struct Calls {
  napi_env env;
  napi_value leftOut;

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
  struct tree_layout layout{};
  bool complete = false;
  ~Tree() {
    if (made) tree_free(made);
  }
};

const Calls &callsOf(void *context) { return *static_cast<Tree *>(context)->calls; }

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

/* (showParts, key) */
napi_value makeTree(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  tree_options options{};
  options.show_parts = a.flag(0);
  Bytes key = a.bytes(1);
  if (a.failed) return nullptr;
  if (key.length != sizeof options.key) return failed(env, "a key of eight bytes is wanted");
  memcpy(&options.key, key.data, sizeof options.key);
  Tree *tree = new Tree;
  tree_calls calls = {tree, leftOut};
  tree->made = tree_new(&options, &calls);
  napi_value external;
  if (!tree->made || napi_create_external(env, tree, [](napi_env, void *data, void *) { delete static_cast<Tree *>(data); }, nullptr, &external) != napi_ok) {
    delete tree;
    return failed(env, "no memory for a tree");
  }
  return external;
}

/* (tree, bytes, leftOut): bytes of whole items that were added, or -1 if what follows those is no item. */
napi_value treeAdd(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes bytes = a.bytes(1);
  Tree *tree = treeOf(a);
  if (a.failed || !tree) return nullptr;
  if (tree->complete) return failed(env, "a tree whose layout was asked for takes no items");
  Calls calls = {env, a.value(2)};
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

/* (tree, layout): no items will follow; layout (float64) gets rows, chunks, the image's bytes, then offset and bytes of each column. */
napi_value treeLayout(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes into = a.bytes(1);
  Tree *tree = treeOf(a);
  if (a.failed || !tree) return nullptr;
  double values[3 + 2 * TREE_COLUMNS];
  if (into.length != sizeof values) return failed(env, "a layout of another length");
  struct tree_layout &layout = tree->layout;
  if (tree_layout(tree->made, &layout) != ITEM_OK) return failed(env, "no memory for an archive's files");
  tree->complete = true;
  values[0] = static_cast<double>(layout.rows);
  values[1] = static_cast<double>(layout.chunks);
  values[2] = static_cast<double>(layout.bytes);
  for (int c = 0; c < TREE_COLUMNS; c++) {
    values[3 + 2 * c] = static_cast<double>(layout.offset[c]);
    values[4 + 2 * c] = static_cast<double>(layout.length[c]);
  }
  memcpy(into.data, values, sizeof values);
  return makeUndefined(env);
}

/* (tree, image, chunks): all columns to memory of the layout's size; the tree is done with. */
napi_value treeWrite(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes image = a.bytes(1), chunks = a.bytes(2);
  Tree *tree = treeOf(a);
  if (a.failed || !tree) return nullptr;
  if (!tree->complete || image.length != tree->layout.bytes || chunks.length != tree->layout.chunks * 40) return failed(env, "memory of another size than the layout's");
  tree_write(tree->made, &tree->layout, image.data, chunks.data);
  tree_free(tree->made);
  tree->made = nullptr;
  return makeUndefined(env);
}

}  // namespace

void registerTree(napi_env env, napi_value exports) {
  defineFunction(env, exports, "makeTree", makeTree);
  defineFunction(env, exports, "treeAdd", treeAdd);
  defineFunction(env, exports, "treeLayout", treeLayout);
  defineFunction(env, exports, "treeWrite", treeWrite);
}
