/* A directory with the metadata of all its entries in one call, and the same of one object. */
#include "arguments.h"
#include "attributes.h"
#include "long_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

namespace {

napi_value makeRows(napi_env env, const std::vector<int64_t> &rows) {
  void *data;
  napi_value buffer, array;
  napi_create_arraybuffer(env, rows.size() * 8, &data, &buffer);
  if (!rows.empty()) memcpy(data, rows.data(), rows.size() * 8);
  napi_create_typedarray(env, napi_bigint64_array, rows.size(), buffer, 0, &array);
  return array;
}

class Directory : public Work {
 public:
  /* `chosen`: names to look at, each with a NUL behind it, instead of all that there are. */
  Directory(std::string path, int want, std::string chosen) : path(std::move(path)), want(want) {
    for (size_t start = 0; start < chosen.size();) {
      size_t end = chosen.find('\0', start);
      entries.push_back({0, chosen.substr(start, end - start), {}});
      start = end == std::string::npos ? chosen.size() : end + 1;
    }
  }

  void run() override {
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    LongPath reached(path);
    if (reached.failed) errno = reached.failed;
    int fd = reached.failed ? -1 : openat(reached.fd, reached.name.c_str(), flags | O_NOATIME);
    /* As in openForReading. */
    if (fd < 0 && !reached.failed && (errno == EPERM || errno == EROFS)) fd = openat(reached.fd, reached.name.c_str(), flags);
    if (fd < 0) return fail("open");
    if (entries.empty()) return list(fd);
    readEntries(fd);
    close(fd);
  }

  void list(int fd) {
    DIR *stream = fdopendir(fd);
    if (!stream) {
      fail("fdopendir");
      close(fd);
      return;
    }
    errno = 0;
    while (struct dirent *entry = readdir(stream)) {
      if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) entries.push_back({entry->d_ino, entry->d_name, {}});
      errno = 0;
    }
    if (errno) fail("readdir");
    std::stable_sort(entries.begin(), entries.end(), [](const Entry &a, const Entry &b) { return a.ino < b.ino; });
    if (want & WANT_NAMES_ONLY) rows.resize(0);
    else readEntries(fd);
    closedir(stream);
  }

  void readEntries(int fd) {
    rows.resize(entries.size() * ATTRIBUTE_ROW);
    for (size_t i = 0; i < entries.size() && !error; i++) readEntry(fd, i);
  }

  napi_value value(napi_env env) override {
    /* The names in one piece: a buffer each would cost more than all else that is known of the entries. */
    napi_value result, ends, endsBuffer, attributes;
    void *endsData;
    napi_create_object(env, &result);
    napi_create_arraybuffer(env, entries.size() * 4, &endsData, &endsBuffer);
    napi_create_typedarray(env, napi_uint32_array, entries.size(), endsBuffer, 0, &ends);
    napi_create_array_with_length(env, entries.size(), &attributes);
    napi_value nothing = makeUndefined(env);
    std::string names;
    for (size_t i = 0; i < entries.size(); i++) {
      const Entry &entry = entries[i];
      names += entry.name;
      static_cast<uint32_t *>(endsData)[i] = static_cast<uint32_t>(names.size());
      napi_set_element(env, attributes, i, entry.packed.empty() ? nothing : makeBuffer(env, entry.packed.data(), entry.packed.size()));
    }
    napi_set_named_property(env, result, "names", makeBuffer(env, names.data(), names.size()));
    napi_set_named_property(env, result, "nameEnds", ends);
    napi_set_named_property(env, result, "stats", makeRows(env, rows));
    napi_set_named_property(env, result, "attributes", attributes);
    return result;
  }

 private:
  struct Entry {
    uint64_t ino;
    std::string name;
    std::vector<uint8_t> packed;
  };

  void fail(const char *call) {
    error = errno;
    syscall = call;
  }

  void readEntry(int fd, size_t index) {
    Entry &entry = entries[index];
    int64_t *row = rows.data() + index * ATTRIBUTE_ROW;
    if (attributes_stat(fd, entry.name.c_str(), want, row) != 0 || !(want & (WANT_XATTRS | WANT_ACLS))) return;
    /* xattr calls know no directory descriptor; /proc serves paths that would be too long. */
    std::string full = path.size() + 1 + entry.name.size() < PATH_MAX ? path + "/" + entry.name
                                                                      : "/proc/self/fd/" + std::to_string(fd) + "/" + entry.name;
    packed out = {nullptr, 0, 0};
    int failed = attributes_xattrs(full.c_str(), want, &out);
    if (failed && failed != ENOENT) row[ATTRIBUTE_ERROR] = failed;
    if (out.length) entry.packed.assign(out.data, out.data + out.length);
    free(out.data);
  }

  std::string path;
  int want;
  std::vector<Entry> entries;
  std::vector<int64_t> rows;
};

napi_value readDirectoryAsync(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::string path = arguments.text(0);
  int want = static_cast<int>(arguments.integer(1));
  std::string chosen = arguments.bytes(2).text();
  if (arguments.failed) return nullptr;
  return Work::start(env, new Directory(path, want, chosen), nullptr, "borgfs:readDirectory");
}

napi_value readAttributes(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::string path = arguments.text(0);
  int want = static_cast<int>(arguments.integer(1));
  if (arguments.failed) return nullptr;
  std::vector<int64_t> row(ATTRIBUTE_ROW);
  LongPath reached(path.empty() ? "." : path);
  int failed = reached.failed ? reached.failed : attributes_stat(reached.fd, reached.name.c_str(), want, row.data());
  if (failed) return throwErrno(env, failed, "statx");
  packed out = {nullptr, 0, 0};
  if (want & (WANT_XATTRS | WANT_ACLS)) failed = attributes_xattrs(reached.whole().c_str(), want, &out);
  napi_value result = nullptr;
  if (failed) {
    throwErrno(env, failed, "getxattr");
  } else {
    napi_create_object(env, &result);
    napi_set_named_property(env, result, "stat", makeRows(env, row));
    napi_set_named_property(env, result, "attributes", out.length ? makeBuffer(env, out.data, out.length) : makeUndefined(env));
  }
  free(out.data);
  return result;
}

}  // namespace

void registerDirectory(napi_env env, napi_value exports) {
  defineFunction(env, exports, "readDirectoryAsync", readDirectoryAsync);
  defineFunction(env, exports, "readAttributes", readAttributes);
}
