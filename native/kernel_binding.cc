/* The FUSE device: waiting for requests, being woken, and receiving the descriptor from fusermount3. */
#include "arrivals_binding.h"
#include "arguments.h"
#include "companion.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

namespace {

napi_value eventFd(napi_env env, napi_callback_info) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? throwErrno(env, errno, "eventfd") : makeNumber(env, fd);
}

napi_value signalEventFd(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fd = a.descriptor(0);
  if (a.failed) return nullptr;
  uint64_t one = 1;
  /* EAGAIN: the counter is full, so the waiter is certain to wake. */
  if (write(fd, &one, sizeof one) < 0 && errno != EAGAIN) return throwErrno(env, errno, "write");
  return makeUndefined(env);
}

bool drain(int wakeFd) {
  uint64_t count;
  return read(wakeFd, &count, sizeof count) == sizeof count;
}

/*
 * Requests come in bursts: the next one is mostly a few microseconds behind the answer, while a processor that went to sleep takes
 * far longer to wake. So after a request the device is asked again for a moment before this thread waits.
 */
const long spinNanoseconds = 100000;
/* Not after a READ of more than this: what it waits for is decoded, and whoever decodes needs the processor. */
const uint32_t maxReadBeforeSpin = 128 * 1024;
long nanosecondsNow() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000L + now.tv_nsec;
}

bool isLongRead(const uint8_t *request, ssize_t length) {
  /* struct fuse_in_header, and the beginning of struct fuse_read_in. */
  struct { uint32_t length, opcode; uint64_t unique, node; uint32_t uid, gid, pid, padding; uint64_t handle, offset; uint32_t size; } read;
  const uint32_t opcodeRead = 15;
  if (length < static_cast<ssize_t>(sizeof read)) return false;
  memcpy(&read, request, sizeof read);
  return read.opcode == opcodeRead && read.size > maxReadBeforeSpin;
}

/* A READ, or a WRITE of more than a few pages. */
bool takesLonger(const uint8_t *request, size_t length) {
  /* struct fuse_in_header, and the beginning of struct fuse_write_in. */
  struct { uint32_t length, opcode; uint64_t unique, node; uint32_t uid, gid, pid, padding; uint64_t handle, offset; uint32_t size; } write;
  const uint32_t opcodeRead = 15, opcodeWrite = 16, longWrite = 64 * 1024;
  if (length < sizeof write) return false;
  memcpy(&write, request, sizeof write);
  return write.opcode == opcodeRead || (write.opcode == opcodeWrite && write.size > longWrite);
}

/* Under load the device is never empty, so wake-ups are looked for every so many requests. */
const unsigned requestsBetweenWakeChecks = 16;
const long longYieldNanoseconds = 500000, yieldPauseFactor = 200;
const double unmounted = -1;
/*
 * So long without a request, and whoever asked is done, or busy with something else. Far more than the time from one timer tick of the kernel to the next: a timer
 * that comes before that has to be set in the hardware at each wait, which for a virtual machine takes as long as to answer a request.
 */
const int pauseMs = 20;

/* The FUSE device, the slot for its requests and their answers, and what is remembered from one request to the next. */
class Device {
 public:
  Device(int fuseFd, int wakeFd, Bytes slot, int timeoutMs) : fuseFd(fuseFd), wakeFd(wakeFd), slot(slot), timeoutMs(timeoutMs) {}

  /* 0, or the errno of a reply that the kernel did not take. */
  int reply(size_t length) {
    if (write(fuseFd, slot.data, length) >= 0) return 0;
    int number = errno;
    /* Nobody waits any more, or the mount is gone, which the next read says. Anything else would leave somebody waiting for ever. */
    if (number == EINVAL) {
      uint32_t refusal[2] = {16, static_cast<uint32_t>(-EIO)};
      memcpy(slot.data, refusal, sizeof refusal);
      ssize_t ignored = write(fuseFd, slot.data, 16);
      (void)ignored;
    }
    return number;
  }

  /* As receiveRequest; an errno, as a negative number below `unmounted`, if the device cannot be read. */
  double receive(bool soon) {
    long now = nanosecondsNow(), end = timeoutMs < 0 ? LONG_MAX : now + timeoutMs * 1000000L;
    if (afterRequest) spinUntil = now + spinNanoseconds;
    afterRequest = false;
    bool look = true;
    for (;;) {
      if (look) {
        look = false;
        if (++sinceWakeCheck >= requestsBetweenWakeChecks) {
          sinceWakeCheck = 0;
          /* JavaScript has its turn under any load. */
          if (drain(wakeFd) || nanosecondsNow() >= end) return 0;
        }
      }
      ssize_t length = read(fuseFd, slot.data, slot.length);
      if (length > 0) {
        if (answered(static_cast<size_t>(length))) {
          spinUntil = companion.isBeside() ? 0 : nanosecondsNow() + spinNanoseconds;
          look = true;
          continue;
        }
        afterRequest = !companion.isBeside() && !isLongRead(slot.data, length);
        spinUntil = 0;
        return static_cast<double>(length);
      }
      if (length < 0 && errno == ENODEV) {
        companion.rest();
        return unmounted;
      }
      if (length < 0 && (errno == EINTR || errno == ENOENT)) continue;
      if (length < 0 && errno != EAGAIN) return unmounted - errno;
      if (spinUntil != 0) {
        if (drain(wakeFd)) return 0;
        letOthersRun();
        if (nanosecondsNow() >= spinUntil) spinUntil = 0;
        continue;
      }
      struct pollfd fds[2] = {{fuseFd, POLLIN, 0}, {wakeFd, POLLIN, 0}};
      bool mayRest = companion.keepsOthersOff();
      int ready = poll(fds, 2, mayRest || (soon && (timeoutMs < 0 || timeoutMs > pauseMs)) ? pauseMs : timeoutMs);
      if (ready < 0 && errno == EINTR) continue;
      if (ready < 0) return unmounted - errno;
      if (ready == 0 && mayRest) {
        companion.rest();
        if (soon) return 0;
        continue;
      }
      if (ready == 0) return 0;
      if (fds[1].revents && drain(wakeFd)) {
        sinceWakeCheck = 0;
        return 0;
      }
      /* POLLERR on the device means unmounted: the read above says ENODEV then. */
    }
  }

  size_t room() const { return slot.length; }

  napi_ref keep = nullptr;

 private:
  /* Answers what can be answered here; whether that is all there is to do. */
  bool answered(size_t length) {
    const size_t pidAt = 32;
    uint32_t pid = 0;
    if (length >= pidAt + sizeof pid) memcpy(&pid, slot.data + pidAt, sizeof pid);
    long answer = answerHere(slot.data, length, slot.length);
    if (answer == ANSWER_OTHER && takesLonger(slot.data, length)) companion.leave();
    else companion.note(pid, nanosecondsNow());
    if (answer == ANSWER_OTHER) return false;
    if (answer != ANSWER_NONE && reply(static_cast<size_t>(answer)) != 0) replyNotTaken();
    return true;
  }

  /*
   * Who was answered is often woken on this very processor, and so is who works for what was put off: they should not wait for the end of
   * the spin. On a loaded machine, though, a yield gives away whole time slices, and who yields for each request starves: after one that took
   * long there is none for many times as long.
   */
  void letOthersRun() {
    long before = nanosecondsNow();
    if (before < yieldAgainAt) return;
    sched_yield();
    long after = nanosecondsNow();
    if (after - before > longYieldNanoseconds) yieldAgainAt = after + yieldPauseFactor * (after - before);
  }

  const int fuseFd, wakeFd;
  const Bytes slot;
  const int timeoutMs;
  Companion companion;
  unsigned sinceWakeCheck = 0;
  bool afterRequest = false;
  long spinUntil = 0, yieldAgainAt = 0;
};

/* (fuseFd, wakeFd, slot, timeoutMs) */
napi_value openDevice(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int fuseFd = a.descriptor(0), wakeFd = a.descriptor(1);
  Bytes slot = a.bytes(2);
  int timeoutMs = static_cast<int>(a.integer(3));
  if (a.failed) return nullptr;
  int flags = fcntl(fuseFd, F_GETFL);
  if (flags < 0 || fcntl(fuseFd, F_SETFL, flags | O_NONBLOCK) < 0) return throwErrno(env, errno, "fcntl");
  Device *device = new Device(fuseFd, wakeFd, slot, timeoutMs);
  napi_create_reference(env, a.value(2), 1, &device->keep);
  napi_value external;
  napi_create_external(env, device, [](napi_env at, void *data, void *) {
    Device *gone = static_cast<Device *>(data);
    napi_delete_reference(at, gone->keep);
    delete gone;
  }, nullptr, &external);
  return external;
}

/* (device, replyLength, soon) */
napi_value receiveRequest(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  void *data = nullptr;
  int64_t replyLength = a.integer(1);
  bool soon = a.flag(2);
  if (a.failed) return nullptr;
  if (napi_get_value_external(env, a.value(0), &data) != napi_ok || !data) {
    napi_throw_type_error(env, nullptr, "not a device");
    return nullptr;
  }
  Device *device = static_cast<Device *>(data);
  if (replyLength > static_cast<int64_t>(device->room())) {
    napi_throw_range_error(env, nullptr, "a reply longer than its memory");
    return nullptr;
  }
  int refused = replyLength > 0 ? device->reply(static_cast<size_t>(replyLength)) : 0;
  if (refused) return makeNumber(env, unmounted - refused);
  double received = device->receive(soon);
  return received < unmounted ? throwErrno(env, static_cast<int>(unmounted - received), "read") : makeNumber(env, received);
}

/* (source, target, type, flags, data) */
napi_value mountAt(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  std::string source = a.text(0), target = a.text(1), type = a.text(2), data = a.text(4);
  unsigned long flags = static_cast<unsigned long>(a.integer(3));
  if (a.failed) return nullptr;
  if (mount(source.c_str(), target.c_str(), type.c_str(), flags, data.c_str()) < 0) return throwErrno(env, errno, "mount");
  return makeUndefined(env);
}

napi_value socketPair(napi_env env, napi_callback_info) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return throwErrno(env, errno, "socketpair");
  napi_value result;
  napi_create_array_with_length(env, 2, &result);
  napi_set_element(env, result, 0, makeNumber(env, fds[0]));
  napi_set_element(env, result, 1, makeNumber(env, fds[1]));
  return result;
}

napi_value receiveDescriptor(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  int socketFd = a.descriptor(0);
  if (a.failed) return nullptr;
  char byte;
  struct iovec part = {&byte, 1};
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct msghdr message;
  memset(&message, 0, sizeof message);
  memset(&control, 0, sizeof control);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.space;
  message.msg_controllen = sizeof control.space;
  ssize_t length;
  do {
    length = recvmsg(socketFd, &message, MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0) return throwErrno(env, errno, "recvmsg");
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (length > 0 && header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return makeNumber(env, fd);
}

}  // namespace

void registerKernel(napi_env env, napi_value exports) {
  defineFunction(env, exports, "eventFd", eventFd);
  defineFunction(env, exports, "signalEventFd", signalEventFd);
  defineFunction(env, exports, "openDevice", openDevice);
  defineFunction(env, exports, "receiveRequest", receiveRequest);
  defineFunction(env, exports, "mountAt", mountAt);
  defineFunction(env, exports, "socketPair", socketPair);
  defineFunction(env, exports, "receiveDescriptor", receiveDescriptor);
}
