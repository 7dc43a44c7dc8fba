/* Requests of this thread's FUSE device that are answered without JavaScript: by trees, or by the directory that is lent (arrivals_binding.cc). */
#ifndef BORGFS_ARRIVALS_BINDING_H
#define BORGFS_ARRIVALS_BINDING_H

#include "answers.h"

/* As tree_answer; the reply takes the place of the request. */
long answerHere(uint8_t *slot, size_t length, size_t room);

/* The kernel did not take the reply to the last one. */
void replyNotTaken();

#endif
