/* Keeps a processor occupied for some microseconds at a time, with nothing. */
#ifndef BORGFS_OCCUPANT_H
#define BORGFS_OCCUPANT_H

#include <atomic>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * A thread of the lowest priority, so that whoever has something to do there has the processor at once. It runs until a moment that is told anew
 * again and again, and sleeps then. There is one in a process; it never ends.
 */
class Occupant {
 public:
  static Occupant &get() {
    static Occupant *one = new Occupant(); /* never freed: the thread has it */
    return *one;
  }

  /* In nanoseconds of CLOCK_MONOTONIC. */
  void stayUntil(long moment) {
    until.store(moment, std::memory_order_relaxed);
    if (asleep.exchange(0) == 1) syscall(SYS_futex, &asleep, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

  void stop() { until.store(0, std::memory_order_relaxed); }

  /* One of two processors, the one which is not this. */
  void stayBeside(int processor) {
    if (processor == besides || thread <= 0) return;
    cpu_set_t other;
    CPU_ZERO(&other);
    CPU_SET(static_cast<unsigned>(1 - processor), &other);
    if (sched_setaffinity(thread, sizeof other, &other) == 0) besides = processor;
  }

 private:
  Occupant() {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t made;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    /* Signals are for Node's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&made, &attributes, run, this) == 0) pthread_setname_np(made, "occupant");
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
  }

  static void *run(void *self) {
    static_cast<Occupant *>(self)->stay();
    return nullptr;
  }

  void stay() {
    pid_t own = static_cast<pid_t>(syscall(SYS_gettid));
    setpriority(PRIO_PROCESS, static_cast<id_t>(own), 19);
    thread = own;
    for (;;) {
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      if (now.tv_sec * 1000000000L + now.tv_nsec >= until.load(std::memory_order_relaxed)) {
        asleep.store(1);
        /* It may have been told meanwhile, and have been thought awake. */
        if (now.tv_sec * 1000000000L + now.tv_nsec < until.load()) asleep.store(0);
        else syscall(SYS_futex, &asleep, FUTEX_WAIT_PRIVATE, 1, nullptr, nullptr, 0);
        continue;
      }
      for (int i = 0; i < 32; i++) pause();
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
  }

  std::atomic<long> until{0};
  std::atomic<int> asleep{0};
  std::atomic<pid_t> thread{0};
  int besides = -1;
};

#endif
