/*
 * The items of an archive as columns of rows: what src/fs/tree-builder.ts does, which is its plain twin and has the rules, for
 * archives that are shown whole. Layout of the columns: src/fs/tree-columns.ts.
 */
#ifndef BORGFS_TREE_H
#define BORGFS_TREE_H

#include "items.h"
#include "name_hash.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tree;

struct tree_options {
  int show_parts;
  /* At random, or whoever chooses names chooses where they are looked for. */
  struct name_key key;
};

/* Asked by tree_add. A negative result ends it with TREE_CALL. */
struct tree_calls {
  void *context;
  /* An item is left out: its path cannot be shown, or it is a hard link to `source`, which is not there. */
  int (*left_out)(void *context, struct span path, const struct span *source);
};

enum { TREE_MEMORY = -3, TREE_FULL = -4, TREE_CALL = -5 };

/* NULL: no memory. Ends with tree_free. */
struct tree *tree_new(const struct tree_options *options, const struct tree_calls *calls);
void tree_free(struct tree *tree);

/* Adds whole items; *used tells their bytes. ITEM_TRUNCATED: the rest is the beginning of an item. After another error only tree_free is allowed. */
int tree_add(struct tree *tree, const uint8_t *bytes, size_t length, size_t *used);

/* The columns in the order of tree-image.ts, each at a multiple of 8 bytes. */
enum { TREE_COLUMNS = 18 };
struct tree_layout {
  size_t rows, chunks, bytes;
  size_t offset[TREE_COLUMNS], length[TREE_COLUMNS]; /* in bytes */
};

/* What tree_write will write; the tree takes no more items. ITEM_OK or TREE_MEMORY. */
int tree_layout(struct tree *tree, struct tree_layout *layout);
/* Writes all columns (layout->bytes, and 40 bytes for each chunk) and frees each as it goes: afterwards only tree_free is allowed. */
void tree_write(struct tree *tree, const struct tree_layout *layout, uint8_t *image, uint8_t *chunks);

#ifdef __cplusplus
}
#endif
#endif
