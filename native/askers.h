/* What a FUSE thread remembers of the programs that ask it, so that each is answered in the manner that costs it least. */
#ifndef BORGFS_ASKERS_H
#define BORGFS_ASKERS_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

class Askers {
 public:
  /*
   * ls -l asks for the label and the ACL of each file, which is most of what it waits for; if it is told that the file system has none, it
   * asks no more. For a tree that has none that is as good an answer as "this file has none". But the program goes by it on the
   * whole drive, so it is given only to one that has asked of many files of this tree and of no other, and has not listed the archives.
   * Nor to the kernel, which wants to know for permissions and takes it for an error: that never asks on behalf of a file's owner, unless
   * somebody (overlayfs) asks in another one's name.
   */
  bool mayTell(uint32_t pid, uint32_t uid, uint64_t root) {
    Asker &asker = of(pid);
    if (asker.uid != uid || asker.root != root) {
      asker.uid = uid;
      asker.root = root;
      asker.questions = 0;
      asker.told = false;
    }
    if (++asker.questions == questionsBefore) asker.told = !asker.listedArchives && isThemselves(pid, uid);
    return asker.told;
  }

  void listsArchives(uint32_t pid) {
    Asker &asker = of(pid);
    asker.listedArchives = true;
    asker.told = false;
  }

  /*
   * find and shells want names. With the attributes of each the kernel makes an inode, which takes it ten times as long as the name,
   * and a kilobyte. Who looks up what was listed wants attributes, and gets them with the names from then on; that is learned from
   * small directories, where the single questions do not matter.
   */
  bool readsNamesOnly(uint32_t pid, bool fromSmall) {
    const Asker &asker = of(pid);
    return !asker.looksUp && (fromSmall || asker.names >= namesBefore);
  }

  bool looksUp(uint32_t pid) { return of(pid).looksUp; }
  void lookedUp(uint32_t pid) { of(pid).looksUp = true; }
  void tookNames(uint32_t pid, size_t count) { of(pid).names += count; }

 private:
  static const unsigned questionsBefore = 64, namesBefore = 256, remembered = 16;
  static const int64_t forgottenAfterMs = 2000;
  struct Asker {
    uint32_t pid, uid;
    uint64_t root;
    size_t names;
    unsigned questions;
    bool listedArchives, told, looksUp;
    int64_t seenMs;
  };

  Asker &of(uint32_t pid) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t nowMs = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    Asker *oldest = &askers[0];
    for (Asker &asker : askers) {
      if (asker.pid == pid && nowMs - asker.seenMs <= forgottenAfterMs) {
        asker.seenMs = nowMs;
        return asker;
      }
      /* Another process may have the number by now: the first to go. */
      if (asker.pid == pid) asker.seenMs = 0;
      if (asker.seenMs < oldest->seenMs) oldest = &asker;
    }
    *oldest = {pid, 0, 0, 0, 0, false, false, false, nowMs};
    return *oldest;
  }

  /* Whether the thread acts for the user that it is. */
  static bool isThemselves(uint32_t pid, uint32_t uid) {
    char path[40], text[2048];
    snprintf(path, sizeof path, "/proc/%u/status", pid);
    int fd = pid ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return false;
    text[length] = 0;
    const char *line = strstr(text, "\nUid:");
    unsigned real, effective, saved, files;
    return line && sscanf(line, "\nUid: %u %u %u %u", &real, &effective, &saved, &files) == 4 && files == uid;
  }

  Asker askers[remembered] = {};
};

#endif
