/* Requests of this thread's FUSE device about the directory that is lent (arrivals_binding.cc). */
#ifndef BORGFS_ARRIVALS_BINDING_H
#define BORGFS_ARRIVALS_BINDING_H

#include "answers.h"

/* As answerByTree; not for here where nothing is lent. */
long answerByLoan(uint8_t *slot, size_t length, size_t room);

/* The kernel did not take the reply to the last request. */
void loanNotTaken();

#endif
