/* On which processor the thread that answers the kernel runs: that of the program which asks, or any. */
#ifndef BORGFS_COMPANION_H
#define BORGFS_COMPANION_H

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * One program that asks one small thing after the other (ls -l, find, cp of small files) is answered soonest by a thread on its own
 * processor: each of the two runs while the other waits, and no second processor has to be woken for a few microseconds of work, twice a
 * request. So the thread goes there now and then, and is not kept there: where the kernel finds both a processor of their own, that is its choice.
 */
class Companion {
 public:
  /* A request that is answered soon. */
  void note(uint32_t asker) {
    if (asker == 0) return; /* sent by the kernel itself */
    if (asker != pid) {
      pid = asker;
      streak = 0;
    }
    if (++streak % requestsBetweenLooks != 0) return;
    int cpu = processorOf(pid), own = sched_getcpu();
    if (cpu != own) visit(cpu);
  }

  /* A request that takes longer gains more from two processors: reads that trees do not answer, and large writes. */
  void leave() { streak = 0; }

 private:
  static const unsigned requestsBetweenLooks = 64;

  static void visit(int cpu) {
    cpu_set_t everywhere, one;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof everywhere, &everywhere) < 0) return;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(cpu), &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) sched_setaffinity(0, sizeof everywhere, &everywhere);
  }

  /* Where the thread ran last, -1 if that cannot be told. */
  static int processorOf(uint32_t pid) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return -1;
    text[length] = 0;
    /* The name may hold anything; behind its bracket stand fields 3, 4 ... and 39 is the processor. */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 39; field++) at = strchr(at + 1, ' ');
    return at ? atoi(at + 1) : -1;
  }

  uint32_t pid = 0;
  unsigned streak = 0;
  long lastT = 0;
};

#endif
