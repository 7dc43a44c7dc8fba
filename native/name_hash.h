/* Where a name in a directory is looked for among the slots of a tree's columns: who makes them and who answers from them must agree. */
#ifndef BORGFS_NAME_HASH_H
#define BORGFS_NAME_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t hash_name(uint32_t parent, const uint8_t *name, size_t length) {
  uint32_t hash = (parent ^ 0x811c9dc5u) * 0x9e3779b1u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ name[i]) * 0x01000193u;
  hash ^= hash >> 15;
  hash *= 0x85ebca6bu;
  return hash ^ hash >> 13;
}

#endif
