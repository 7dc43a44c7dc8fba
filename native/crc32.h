/* CRC-32 as in zlib (polynomial 0x04c11db7, reflected), with carry-less multiplication where the processor has it. */
#ifndef BORGFS_CRC32_H
#define BORGFS_CRC32_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Continues `crc`, which is 0 at the beginning. Safe in every thread. */
uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t length);

/* Whether crc32_update is faster here than plain code: without, the caller has a better one in zlib. */
int crc32_is_fast(void);

#ifdef __cplusplus
}
#endif

#endif
