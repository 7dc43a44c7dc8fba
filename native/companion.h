/* On which processors the thread that answers the kernel runs, and those that work for it: that of the program which asks, or any. */
#ifndef BORGFS_COMPANION_H
#define BORGFS_COMPANION_H

#include "occupant.h"
#include "own_threads.h"

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
 * request. So the thread goes there now and then, and is not kept there: while the other processor has work the kernel leaves both together.
 * While it has none the kernel would have the program go on there at each answer. Where there are just two processors the other one is
 * kept occupied instead, by a thread of the lowest priority, for no longer than this one would wait for the next request without sleeping; and
 * the other threads of this process, which decode or save what is asked for, have to stay there too: the processor of the two has more to do as it is.
 */
class Companion {
 public:
  /* A request that is answered soon. */
  void note(uint32_t asker, long nanosecondsNow) {
    if (asker == 0) return; /* sent by the kernel itself */
    if (asker != pid || nanosecondsNow - lastNote > longestPause) {
      pid = asker;
      streak = 0;
      threads.letBack();
    }
    lastNote = nanosecondsNow;
    if (++streak < requestsBeforeJoining) return;
    if (streak % requestsBetweenLooks == 0) look();
    beside = twoProcessors();
    if (beside) Occupant::get().stayUntil(nanosecondsNow + occupied);
  }

  /* A request that takes longer gains more from two processors, for this thread and for all: reads that trees do not answer, and large writes. */
  void leave() {
    if (beside) Occupant::get().stop();
    beside = false;
    threads.letBack();
  }

  /* The other processor is kept occupied, so it is better to sleep than to wait for a request without sleeping. */
  bool isBeside() const { return beside; }

  /* Whether `rest` has anything to do: it should be called when no request comes for a while. */
  bool keepsOthersOff() const { return threads.areKeptOff(); }
  void rest() { threads.letBack(); }

 private:
  static const unsigned requestsBeforeJoining = 32, requestsBetweenLooks = 64;
  static const long longestPause = 5000000, occupied = 150000;

  /* And this thread, when it asks for the first time, may be on either. */
  static bool twoProcessors() {
    static const bool two = sysconf(_SC_NPROCESSORS_CONF) == 2 && sysconf(_SC_NPROCESSORS_ONLN) == 2 && OwnThreads::mayBeOnBoth();
    return two;
  }

  void look() {
    int cpu = processorOf(pid);
    if (twoProcessors() && (cpu == 0 || cpu == 1)) {
      Occupant::get().stayBeside(cpu);
      threads.keepOff(cpu);
    } else if (cpu != sched_getcpu()) {
      visit(cpu);
    }
  }

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

  OwnThreads threads;
  uint32_t pid = 0;
  /* Requests of it, without a pause, that are answered soon. */
  unsigned streak = 0;
  long lastNote = 0;
  bool beside = false;
};

#endif
