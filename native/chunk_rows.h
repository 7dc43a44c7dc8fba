/*
 * The chunk list of an item, from MessagePack to rows of 40 bytes (id 32, size u32le, csize u32le): archive.md §4. No allocation.
 */
#ifndef BORGFS_CHUNK_ROWS_H
#define BORGFS_CHUNK_ROWS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CHUNK_ROW_BYTES = 40 };

/*
 * Reads `count` entries [raw 32, uint, uint] that begin at data[position] into rows, which hold count * 40 bytes. Returns the position
 * after them, or -1 if anything there is not just that, or ends early: whoever asked then looks himself what it is.
 */
int64_t chunk_rows_unpack(const uint8_t *data, size_t length, size_t position, size_t count, uint8_t *rows);

#ifdef __cplusplus
}
#endif

#endif
