/* System calls that Node lacks. None follows a final symlink. A directory descriptor may be AT_FDCWD (-100). */
#include "arguments.h"
#include "attributes.h"
#include "long_path.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <netdb.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace {

/* Path for calls without a directory descriptor. An empty name is the descriptor's own object. */
std::string pathOf(int dirFd, const std::string &name) {
  if (dirFd == AT_FDCWD) return name;
  std::string base = "/proc/self/fd/" + std::to_string(dirFd);
  return name.empty() ? base : base + "/" + name;
}

napi_value finish(napi_env env, int result, const char *syscall) {
  return result < 0 ? throwErrno(env, errno, syscall) : makeUndefined(env);
}

napi_value openForReading(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string path = a.text(0);
  if (a.failed) return nullptr;
  const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  LongPath reached(path);
  if (reached.failed) return throwErrno(env, reached.failed, "open");
  int fd = openat(reached.fd, reached.name.c_str(), flags | O_NOATIME);
  /* O_NOATIME is for the owner and root only; some network file systems refuse it with EROFS. */
  if (fd < 0 && (errno == EPERM || errno == EROFS)) fd = openat(reached.fd, reached.name.c_str(), flags);
  if (fd < 0) return throwErrno(env, errno, "open");
  return makeNumber(env, fd);
}

napi_value readLink(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string path = a.text(0);
  if (a.failed) return nullptr;
  LongPath reached(path);
  if (reached.failed) return throwErrno(env, reached.failed, "readlink");
  char target[PATH_MAX];
  ssize_t length = readlinkat(reached.fd, reached.name.c_str(), target, sizeof target);
  return length < 0 ? throwErrno(env, errno, "readlink") : makeBuffer(env, target, static_cast<size_t>(length));
}

/*
 * Kernels before 5.6 have no openat2 (ENOSYS), and containers of older hosts forbid what they do not know of (EPERM). A path-only descriptor of a directory is
 * refused for no other reason.
 */
bool lacksOpenat2() {
  static const bool lacks = [] {
    struct open_how how;
    memset(&how, 0, sizeof how);
    how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    long fd = syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how);
    if (fd >= 0) close(static_cast<int>(fd));
    return fd < 0 && (errno == ENOSYS || errno == EPERM);
  }();
  return lacks;
}

/* One component after the other, where there is no openat2. */
int openByComponents(int rootFd, const std::string &path, int flags, mode_t mode) {
  int at = dup(rootFd);
  if (at < 0) return -1;
  size_t start = 0;
  for (;;) {
    size_t slash = path.find('/', start);
    bool final = slash == std::string::npos;
    std::string name = path.substr(start, final ? std::string::npos : slash - start);
    int next;
    if (name == "..") {
      errno = EXDEV;
      next = -1;
    } else if (name.empty() && !final) {
      start = slash + 1;
      continue;
    } else {
      if (name.empty()) name = ".";
      next = final ? openat(at, name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode) : openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    int saved = errno;
    close(at);
    errno = saved;
    if (next < 0 || final) return next;
    at = next;
    start = slash + 1;
  }
}

napi_value openBeneath(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int rootFd = a.descriptor(0);
  std::string path = a.bytes(1).text();
  int flags = static_cast<int>(a.integer(2));
  mode_t mode = static_cast<mode_t>(a.integer(3));
  if (a.failed) return nullptr;
  if (path.find('\0') != std::string::npos || (!path.empty() && path[0] == '/')) return throwErrno(env, EXDEV, "openat2");
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  int at = rootFd;
  long fd = -1;
  for (std::string rest = path; !lacksOpenat2();) {
    size_t cut = rest.size() < PATH_MAX ? std::string::npos : rest.rfind('/', PATH_MAX - 1);
    struct open_how way = how;
    if (cut != std::string::npos) {
      way.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
      way.mode = 0;
    }
    const std::string part = rest.empty() ? "." : rest.substr(0, cut);
    do {
      fd = syscall(SYS_openat2, at, part.c_str(), &way, sizeof way);
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    int saved = errno;
    if (at != rootFd) close(at);
    errno = saved;
    if (fd < 0 || cut == std::string::npos) break;
    at = static_cast<int>(fd);
    rest.erase(0, cut + 1);
  }
  if (lacksOpenat2()) fd = openByComponents(rootFd, path, flags, mode);
  if (fd < 0) return throwErrno(env, errno, "openat2");
  return makeNumber(env, static_cast<double>(fd));
}

napi_value fstatat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  if (a.failed) return nullptr;
  void *data;
  napi_value buffer, array;
  napi_create_arraybuffer(env, ATTRIBUTE_ROW * 8, &data, &buffer);
  int failed = attributes_stat(dirFd, name.c_str(), 0, static_cast<int64_t *>(data));
  if (failed) return throwErrno(env, failed, "statx");
  napi_create_typedarray(env, napi_bigint64_array, ATTRIBUTE_ROW, buffer, 0, &array);
  return array;
}

napi_value mkdirat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  mode_t mode = static_cast<mode_t>(a.integer(2));
  return a.failed ? nullptr : finish(env, mkdirat(dirFd, name.c_str(), mode), "mkdirat");
}

napi_value mknodat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  mode_t mode = static_cast<mode_t>(a.integer(2));
  dev_t device = static_cast<dev_t>(a.integer(3));
  return a.failed ? nullptr : finish(env, mknodat(dirFd, name.c_str(), mode, device), "mknodat");
}

napi_value symlinkat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string target = a.text(0);
  int dirFd = a.descriptor(1);
  std::string name = a.text(2);
  return a.failed ? nullptr : finish(env, symlinkat(target.c_str(), dirFd, name.c_str()), "symlinkat");
}

napi_value linkat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int oldFd = a.descriptor(0);
  std::string oldName = a.text(1);
  int newFd = a.descriptor(2);
  std::string newName = a.text(3);
  return a.failed ? nullptr : finish(env, linkat(oldFd, oldName.c_str(), newFd, newName.c_str(), 0), "linkat");
}

napi_value unlinkat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  bool directory = a.flag(2);
  return a.failed ? nullptr : finish(env, unlinkat(dirFd, name.c_str(), directory ? AT_REMOVEDIR : 0), "unlinkat");
}

napi_value fchownat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  uid_t uid = static_cast<uid_t>(a.integer(2));
  gid_t gid = static_cast<gid_t>(a.integer(3));
  return a.failed ? nullptr : finish(env, fchownat(dirFd, name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH), "fchownat");
}

napi_value fchmodat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  mode_t mode = static_cast<mode_t>(a.integer(2));
  if (a.failed) return nullptr;
  if (name.empty()) {
    int result = fchmod(dirFd, mode);
    if (result < 0 && errno == EBADF) result = chmod(pathOf(dirFd, name).c_str(), mode); /* an O_PATH descriptor */
    return finish(env, result, "fchmod");
  }
  /* fchmodat would follow a symlink: pin the object first. */
  int fd = openat(dirFd, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return throwErrno(env, errno, "openat");
  struct stat facts;
  int result = fstat(fd, &facts);
  if (result == 0 && S_ISLNK(facts.st_mode)) {
    errno = EOPNOTSUPP;
    result = -1;
  }
  if (result == 0) result = chmod(pathOf(fd, "").c_str(), mode);
  int saved = errno;
  close(fd);
  errno = saved;
  return finish(env, result, "fchmodat");
}

napi_value utimensat_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1);
  struct timespec times[2] = {a.time(2), a.time(3)};
  if (a.failed) return nullptr;
  int result = name.empty() ? futimens(dirFd, times) : utimensat(dirFd, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
  if (result < 0 && name.empty() && errno == EBADF) result = utimensat(AT_FDCWD, pathOf(dirFd, name).c_str(), times, 0);
  return finish(env, result, "utimensat");
}

napi_value getFsFlags(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0), flags = 0;
  if (a.failed) return nullptr;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) return throwErrno(env, errno, "ioctl");
  return makeNumber(env, flags);
}

napi_value setFsFlags(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0), flags = static_cast<int>(a.integer(1));
  return a.failed ? nullptr : finish(env, ioctl(fd, FS_IOC_SETFLAGS, &flags), "ioctl");
}

napi_value setxattrat(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1), attribute = a.text(2);
  Bytes value = a.bytes(3);
  if (a.failed) return nullptr;
  std::string path = pathOf(dirFd, name);
  int result = name.empty() ? setxattr(path.c_str(), attribute.c_str(), value.data, value.length, 0)
                            : lsetxattr(path.c_str(), attribute.c_str(), value.data, value.length, 0);
  return finish(env, result, "setxattr");
}

napi_value getxattrat(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int dirFd = a.descriptor(0);
  std::string name = a.text(1), attribute = a.text(2);
  if (a.failed) return nullptr;
  std::string path = pathOf(dirFd, name);
  std::vector<uint8_t> value(65536);
  ssize_t length = name.empty() ? getxattr(path.c_str(), attribute.c_str(), value.data(), value.size())
                                : lgetxattr(path.c_str(), attribute.c_str(), value.data(), value.size());
  return length < 0 ? throwErrno(env, errno, "getxattr") : makeBuffer(env, value.data(), length);
}

napi_value fallocate_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0), mode = static_cast<int>(a.integer(1));
  off_t offset = a.integer(2), length = a.integer(3);
  return a.failed ? nullptr : finish(env, fallocate(fd, mode, offset, length), "fallocate");
}

napi_value seekHole(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  off_t offset = a.integer(1);
  int whence = static_cast<int>(a.integer(2));
  if (a.failed) return nullptr;
  off_t found = lseek(fd, offset, whence);
  if (found < 0 && errno != ENXIO) return throwErrno(env, errno, "lseek");
  return makeNumber(env, static_cast<double>(found));
}

napi_value dropCache(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  off_t offset = a.integer(1), length = a.integer(2);
  if (a.failed) return nullptr;
  sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE);
  posix_fadvise(fd, offset, length, POSIX_FADV_DONTNEED);
  return makeUndefined(env);
}

napi_value startWriteback(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  off_t offset = a.integer(1), length = a.integer(2);
  if (!a.failed) sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE);
  return makeUndefined(env);
}

napi_value advise(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  off_t offset = a.integer(1), length = a.integer(2);
  int advice = static_cast<int>(a.integer(3));
  if (!a.failed) posix_fadvise(fd, offset, length, advice);
  return makeUndefined(env);
}

/* Name lookups with a buffer that grows: large groups exceed any fixed one. */
template <typename Entry, typename Call>
bool lookUp(Entry &entry, std::vector<char> &memory, Call call) {
  Entry *found = nullptr;
  memory.resize(4096);
  while (call(&entry, memory.data(), memory.size(), &found) == ERANGE && memory.size() < (1 << 24)) memory.resize(memory.size() * 2);
  return found != nullptr;
}

napi_value userName(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  uid_t id = static_cast<uid_t>(a.integer(0));
  if (a.failed) return nullptr;
  struct passwd entry;
  std::vector<char> memory;
  bool found = lookUp(entry, memory, [&](auto e, auto m, auto n, auto r) { return getpwuid_r(id, e, m, n, r); });
  return found ? makeBuffer(env, entry.pw_name, strlen(entry.pw_name)) : makeUndefined(env);
}

napi_value groupName(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  gid_t id = static_cast<gid_t>(a.integer(0));
  if (a.failed) return nullptr;
  struct group entry;
  std::vector<char> memory;
  bool found = lookUp(entry, memory, [&](auto e, auto m, auto n, auto r) { return getgrgid_r(id, e, m, n, r); });
  return found ? makeBuffer(env, entry.gr_name, strlen(entry.gr_name)) : makeUndefined(env);
}

napi_value userId(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string name = a.text(0);
  if (a.failed) return nullptr;
  struct passwd entry;
  std::vector<char> memory;
  bool found = lookUp(entry, memory, [&](auto e, auto m, auto n, auto r) { return getpwnam_r(name.c_str(), e, m, n, r); });
  return found ? makeNumber(env, entry.pw_uid) : makeUndefined(env);
}

napi_value groupId(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string name = a.text(0);
  if (a.failed) return nullptr;
  struct group entry;
  std::vector<char> memory;
  bool found = lookUp(entry, memory, [&](auto e, auto m, auto n, auto r) { return getgrnam_r(name.c_str(), e, m, n, r); });
  return found ? makeNumber(env, entry.gr_gid) : makeUndefined(env);
}

napi_value umask_(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  mode_t mask = static_cast<mode_t>(a.integer(0));
  return a.failed ? nullptr : makeNumber(env, umask(mask));
}

/* Without handlers, and without waiting for threads. */
napi_value exitNow(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int code = static_cast<int>(a.integer(0));
  if (!a.failed) _exit(code);
  return nullptr;
}

/* As Borg names the host in locks: the canonical name that the resolver gives for the host name, else the host name. */
napi_value canonicalHostName(napi_env env, napi_callback_info) {
  char own[256] = "localhost";
  gethostname(own, sizeof own - 1);
  std::string result = own;
  struct addrinfo hints, *found = nullptr;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = AI_CANONNAME;
  if (getaddrinfo(own, nullptr, &hints, &found) == 0 && found && found->ai_canonname && *found->ai_canonname) result = found->ai_canonname;
  if (found) freeaddrinfo(found);
  napi_value text;
  napi_create_string_utf8(env, result.c_str(), result.size(), &text);
  return text;
}

}  // namespace

void registerFiles(napi_env env, napi_value exports) {
  defineFunction(env, exports, "openForReading", openForReading);
  defineFunction(env, exports, "readLink", readLink);
  defineFunction(env, exports, "openBeneath", openBeneath);
  defineFunction(env, exports, "fstatat", fstatat_);
  defineFunction(env, exports, "mkdirat", mkdirat_);
  defineFunction(env, exports, "mknodat", mknodat_);
  defineFunction(env, exports, "symlinkat", symlinkat_);
  defineFunction(env, exports, "linkat", linkat_);
  defineFunction(env, exports, "unlinkat", unlinkat_);
  defineFunction(env, exports, "fchownat", fchownat_);
  defineFunction(env, exports, "fchmodat", fchmodat_);
  defineFunction(env, exports, "utimensat", utimensat_);
  defineFunction(env, exports, "getFsFlags", getFsFlags);
  defineFunction(env, exports, "setFsFlags", setFsFlags);
  defineFunction(env, exports, "setxattrat", setxattrat);
  defineFunction(env, exports, "getxattrat", getxattrat);
  defineFunction(env, exports, "fallocate", fallocate_);
  defineFunction(env, exports, "seekHole", seekHole);
  defineFunction(env, exports, "dropCache", dropCache);
  defineFunction(env, exports, "startWriteback", startWriteback);
  defineFunction(env, exports, "advise", advise);
  defineFunction(env, exports, "userName", userName);
  defineFunction(env, exports, "groupName", groupName);
  defineFunction(env, exports, "userId", userId);
  defineFunction(env, exports, "groupId", groupId);
  defineFunction(env, exports, "umask", umask_);
  defineFunction(env, exports, "exitNow", exitNow);
  defineFunction(env, exports, "canonicalHostName", canonicalHostName);
}
