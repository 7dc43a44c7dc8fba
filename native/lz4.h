/* LZ4 blocks (compression.md §3) from and into memory that is there already: what lz4-napi cannot do. */
#ifndef BORGFS_LZ4_H
#define BORGFS_LZ4_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes written to `to`, which has `room`; -1 if the block is damaged or gives more. Any input is safe. */
ptrdiff_t lz4_decode(const uint8_t *from, size_t length, uint8_t *to, size_t room);

/* Bytes written to `to`, which has `room`; -1 if they do not fit. `length` < 2^31. */
ptrdiff_t lz4_encode(const uint8_t *from, size_t length, uint8_t *to, size_t room);

#ifdef __cplusplus
}
#endif
#endif
