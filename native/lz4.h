/* LZ4 blocks (compression.md §1) from and into memory that is there already: what lz4-napi cannot do. */
#ifndef BORGFS_LZ4_H
#define BORGFS_LZ4_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes written to `to`, which has `room`; -1 if the block is damaged or gives more. Any input is safe. Bytes of `to` behind those may have been written too. An empty block,
   and one that ends with a match, are damaged (Borg's liblz4 refuses them too). */
ptrdiff_t lz4_decode(const uint8_t *from, size_t length, uint8_t *to, size_t room);

/* Bytes of plaintext that a block says it has, without decoding it; -1 if it is cut off or there are more than `most`. Any input is safe. What it says of
   offsets is not looked at: lz4_decode may still find it damaged. */
ptrdiff_t lz4_plain_length(const uint8_t *from, size_t length, size_t most);

/* Bytes written to `to`, which has `room`; -1 if they do not fit. `length` < 2^31. */
ptrdiff_t lz4_encode(const uint8_t *from, size_t length, uint8_t *to, size_t room);

#ifdef __cplusplus
}
#endif
#endif
