/** Limits and defaults of the format, each with its reason. Imports nothing. */

/** Bytes of an object id, of a repository id, of every key in an index. */
export const idBytes = 32
/** An entry of a segment never exceeds 20 MiB (LoggedIO of Borg). */
export const maxEntryBytes = 20 * 1024 * 1024
/** CRC 4, size 4, tag 1, key 32. */
export const putHeaderBytes = 41
/** Longest value of a PUT: the stored object's limit. */
export const maxObjectBytes = maxEntryBytes - putHeaderBytes
/** Item metadata stream: small chunks, so that little is stored anew when a file changes (chunker.md §6). */
export const itemsChunkerParams = ['buzhash', 15, 19, 17, 4095] as const
/** File content (chunker.md §1). */
export const defaultChunkerParams = ['buzhash', 19, 23, 21, 4095] as const
/** What is added to every nonce reservation (crypto.md §4). */
export const nonceReservation = 1n << 28n
/** The Borg release whose behaviour this program has; clients parse it. */
export const borgVersion = '1.2.4'
/** File times are clamped to this when stored: 2^31-1 s minus 48 h (archive.md §4). */
export const maxStoredTimeNs = 2147310847000000000n
