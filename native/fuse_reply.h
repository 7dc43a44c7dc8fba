/* How requests of the FUSE device are read and answered in place (src/fs/fuse/kernel/protocol.ts), for whoever does so without JavaScript. */
#ifndef BORGFS_FUSE_REPLY_H
#define BORGFS_FUSE_REPLY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sizes of the headers, of struct fuse_entry_out and struct fuse_attr, and where the one has the other. */
enum { REQUEST = 40, REPLY = 16, ENTRY = 128, ATTR = 88, ATTR_AT = 40, MAX_NAME = 255 };
/* open(2)'s flags, and those of struct fuse_open_out. */
enum { ACCESS_MODE = 3, DIRECT_IO = 1, KEEP_CACHE = 2, CACHE_DIR = 8, NO_FLUSH = 32 };

static inline uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }
static inline void put64(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof value); }

/* A time of struct fuse_attr. */
static inline void put_time(uint8_t *attr, size_t seconds_at, size_t nanoseconds_at, int64_t ns) {
  int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
  if (rest < 0) {
    seconds--;
    rest += 1000000000;
  }
  put64(attr + seconds_at, (uint64_t)seconds);
  put32(attr + nanoseconds_at, (uint32_t)rest);
}

/* The beginning of struct fuse_entry_out: the kernel keeps name and attributes for so long. */
static inline void put_entry_head(uint8_t *at, uint64_t node, uint64_t generation, uint32_t ttl_seconds) {
  memset(at, 0, ATTR_AT);
  put64(at, node);
  put64(at + 8, generation);
  put64(at + 16, ttl_seconds);
  put64(at + 24, ttl_seconds);
}

/* The header before a body of so many bytes, or of an error number below zero; the length of it all. */
static inline long put_reply(uint8_t *reply, uint64_t unique, long body) {
  long length = body < 0 ? REPLY : REPLY + body;
  put32(reply, (uint32_t)length);
  put32(reply + 4, body < 0 ? (uint32_t)body : 0);
  put64(reply + 8, unique);
  return length;
}

#endif
