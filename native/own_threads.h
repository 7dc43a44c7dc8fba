/* The other threads of this process, kept off one of two processors for a while. */
#ifndef BORGFS_OWN_THREADS_H
#define BORGFS_OWN_THREADS_H

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Of one thread, which has that processor while the others have the other one. Threads that were not allowed on both are left alone. One that begins
 * meanwhile is where the one is that made it.
 */
class OwnThreads {
 public:
  static bool mayBeOnBoth() { return mayBeOn(own, both); }

  /* `processor`, 0 or 1, is for this thread. Costs some microseconds for each thread. */
  void keepOff(int processor) {
    if (processor == keptOff || (keptOff < 0 && !mayBeOnBoth())) return;
    letBack();
    if (!put(own, 1u << processor)) return;
    keptOff = processor;
    forEachOther([=](pid_t thread) {
      if (mayBeOn(thread, both)) put(thread, both & ~(1u << processor));
    });
  }

  void letBack() {
    if (keptOff < 0) return;
    unsigned there = both & ~(1u << keptOff);
    keptOff = -1;
    put(own, both);
    forEachOther([=](pid_t thread) {
      if (mayBeOn(thread, there)) put(thread, both);
    });
  }

  bool areKeptOff() const { return keptOff >= 0; }

 private:
  /* Bit i of a set: processor i. */
  static const unsigned both = 3;
  static const pid_t own = 0;

  /* On these, and on no others. */
  static bool mayBeOn(pid_t thread, unsigned processors) {
    cpu_set_t is, wanted = setOf(processors);
    return sched_getaffinity(thread, sizeof is, &is) == 0 && CPU_EQUAL(&is, &wanted);
  }

  static bool put(pid_t thread, unsigned processors) {
    cpu_set_t wanted = setOf(processors);
    return sched_setaffinity(thread, sizeof wanted, &wanted) == 0;
  }

  static cpu_set_t setOf(unsigned processors) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned processor = 0; processor < 2; processor++) {
      if (processors >> processor & 1) CPU_SET(processor, &set);
    }
    return set;
  }

  template <typename Work>
  static void forEachOther(Work work) {
    pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
    DIR *threads = opendir("/proc/self/task");
    if (!threads) return;
    while (struct dirent *entry = readdir(threads)) {
      pid_t thread = static_cast<pid_t>(atoi(entry->d_name));
      if (thread > 0 && thread != self) work(thread);
    }
    closedir(threads);
  }

  int keptOff = -1;
};

#endif
