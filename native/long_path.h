/*
 * A path for one system call, however long the whole is: what PATH_MAX leaves out is reached by way of directory descriptors.
 * Symlinks on the way are followed, as the kernel would.
 */
#ifndef BORGFS_LONG_PATH_H
#define BORGFS_LONG_PATH_H

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <string>

class LongPath {
 public:
  /* Borrows nothing. A part that cannot be reached leaves `failed`, with its errno. */
  explicit LongPath(const std::string &path) : name(path) {
    while (name.size() >= PATH_MAX) {
      size_t cut = name.rfind('/', PATH_MAX - 1);
      if (cut == std::string::npos || cut == 0) return; /* the call itself says that it is too long */
      int next = openat(fd, name.substr(0, cut).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
      int saved = errno;
      leave();
      fd = next;
      if (next < 0) {
        failed = saved;
        return;
      }
      name.erase(0, cut + 1);
    }
  }
  ~LongPath() { leave(); }
  LongPath(const LongPath &) = delete;
  LongPath &operator=(const LongPath &) = delete;

  /* The same for calls that take no directory descriptor. */
  std::string whole() const { return fd < 0 ? name : "/proc/self/fd/" + std::to_string(fd) + "/" + name; }

  int fd = AT_FDCWD;
  /* Relative to fd. */
  std::string name;
  int failed = 0;

 private:
  void leave() {
    if (fd >= 0) close(fd);
    fd = AT_FDCWD;
  }
};

#endif
