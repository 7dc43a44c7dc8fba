/* Requests of this thread's FUSE device that are answered from trees it was told of (answers_binding.cc). */
#ifndef BORGFS_ANSWERS_BINDING_H
#define BORGFS_ANSWERS_BINDING_H

#include "answers.h"

/* As tree_answer, for the tree that has the node; the reply takes the place of the request. */
long answerByTree(uint8_t *slot, size_t length, size_t room);

#endif
