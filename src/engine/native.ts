/**
 * The only door to the addon (native/, built by node-gyp into build/Release/borgfs.node). Native code computes or makes
 * one system call; it knows nothing of keys, policy or repositories. Paths and names are bytes. A failed system call
 * throws an Error whose `code` is the errno's name and `errno` the positive number, as Node's own fs does.
 */
import { createRequire } from 'node:module'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BorgError } from './errors.js'

/** Index of each field in the stat rows of readDirectoryAsync, readAttributes and fstatat. All nanoseconds and numbers are exact int64. */
export const statField = {
  dev: 0, ino: 1, mode: 2, nlink: 3, uid: 4, gid: 5, rdev: 6, size: 7, blocks: 8,
  atimeNs: 9, mtimeNs: 10, ctimeNs: 11,
  /** FS_IOC_GETFLAGS bits of files and directories (Linux numbers), 0 where unsupported or not asked. */
  fsFlags: 12,
  /** 0, or the errno of the lstat that failed: the row is otherwise zero. */
  error: 13,
} as const
/** int64 values per row. */
export const statStride = 14

/** What readDirectoryAsync and readAttributes fetch beside lstat. */
export const wantXattrs = 1, wantAcls = 2, wantFsFlags = 4
/** Of a directory: its names, without looking at what they are. */
export const wantNamesOnly = 8

export interface DirectoryListing {
  /** Names of all entries but `.` and `..`, in the order of their inode numbers, one behind the other. */
  readonly names: Buffer
  /** Where each name ends. Less than 4 GiB together, or there would be no memory for them. */
  readonly nameEnds: Uint32Array
  /** nameEnds.length rows of statStride; none with wantNamesOnly. */
  readonly stats: BigInt64Array
  /** Per entry undefined if none, else packed: (u16le nameLength, name, u32le valueLength, value)*; ACL names included iff wantAcls. */
  readonly attributes: (Buffer | undefined)[]
}

declare const envelopeBrand: unique symbol
declare const xtsBrand: unique symbol
declare const treeBrand: unique symbol
declare const deviceBrand: unique symbol
/** The FUSE device with its slot, for the thread that opened it. */
export type NativeDevice = { readonly [deviceBrand]: true }
/** A tree being built; freed when it is collected. */
export type NativeTree = { readonly [treeBrand]: true }
/** Keys inside the addon; freed and wiped with the object. */
export type NativeXts = { readonly [xtsBrand]: true }
export type NativeEnvelope = { readonly [envelopeBrand]: true }

/** Messages of envelopeRun: an id hash of plaintext, the MAC of a whole object. */
export const idMessage = 0, macMessage = 1
/** As many messages, and as many slots, envelopeRun takes. */
export const maxMessages = 32
/** How an envelope hashes: by OpenSSL; with the processor's SHA instructions; also in the lanes of AVX-512, where these are faster; always in those, if they exist. All but the third are for tests. */
export const hashByOpenssl = 0, hashSideBySide = 1, hashFastest = 2, hashInLanes = 3

export const adviceSequential = 2, adviceWillNeed = 3, adviceDontNeed = 4

export interface Native {
  // --- chunker.c (chunker.md §3, §4) ---
  /**
   * Cuts data[start, end) as one stream continuing at a chunk start. Returns the lengths of the chunks that can be told;
   * with `last` false it stops where more data could change the answer, with `last` true everything is cut.
   * `table` has 256 entries, already XORed with the seed. Sizes in bytes.
   */
  buzhashCuts(table: Uint32Array, minSize: number, maxSize: number, mask: number, window: number,
    data: Uint8Array, start: number, end: number, last: boolean): Uint32Array
  /** The same on libuv's pool; data is borrowed until the promise settles. SharedArrayBuffer memory is allowed in both. */
  buzhashCutsAsync(table: Uint32Array, minSize: number, maxSize: number, mask: number, window: number,
    data: Uint8Array, start: number, end: number, last: boolean): Promise<Uint32Array>
  buzhash(table: Uint32Array, data: Uint8Array): number
  buzhashUpdate(table: Uint32Array, sum: number, remove: number, add: number, length: number): number
  /** True if every byte is zero. */
  isZero(data: Uint8Array): boolean

  // --- crc32.c ---
  /** As zlib's; missing on processors for which it would be no faster. */
  crc32?(data: Uint8Array, crc: number): number

  // --- envelope.c, hmac.c (crypto.md §3): what crypto/keys.ts does through node:crypto, at less cost ---
  /**
   * AES-256-CTR and HMAC-SHA-256 with these keys (encKey empty: only hashing), for this thread. Keys are copied. Undefined where this
   * Node's OpenSSL cannot be reached.
   */
  makeEnvelope(encKey: Uint8Array, hmacKey: Uint8Array, idKey: Uint8Array, hashing: number): NativeEnvelope | undefined
  /** HMAC-SHA-256 by the id key, 32 bytes, into the start of `into`. */
  envelopeIdHash(envelope: NativeEnvelope, data: Uint8Array, into: Uint8Array): void
  /** The object of payload head + data, at `offset` of the target; its length. */
  envelopeSeal(envelope: NativeEnvelope, type: number, nonce: bigint, head: Uint8Array, data: Uint8Array, target: Uint8Array, offset: number): number
  /** The same, all but the MAC. */
  envelopeEncrypt(envelope: NativeEnvelope, type: number, nonce: bigint, head: Uint8Array, data: Uint8Array, target: Uint8Array, offset: number): number
  /** The payload's length, written to the start of `target`; -1 if the MAC is wrong, then nothing was written. */
  envelopeOpen(envelope: NativeEnvelope, object: Uint8Array, target: Uint8Array): number
  /** The same of an object whose MAC was computed by envelopeRun. `target` may be the object from its payload on: it is decrypted in place then. */
  envelopeDecrypt(envelope: NativeEnvelope, object: Uint8Array, target: Uint8Array, mac: Uint8Array): number
  /** Many hashes side by side. To be called before the first; whatever was under way is dropped. */
  envelopeClear(envelope: NativeEnvelope): void
  /**
   * Goes on with `count` messages, the first ones first, each in a slot of its own below maxMessages, until some are finished. Bit i of the answer: message i is, its hash
   * is in the 32 bytes of `into` at 32 * i, and its slot is free. The others must be given again as they were.
   */
  envelopeRun(envelope: NativeEnvelope, slots: Uint8Array, kinds: Uint8Array, data: readonly Uint8Array[], into: Uint8Array, count: number): number

  // --- pbkdf2.c ---
  /**
   * PBKDF2-HMAC-SHA-256 on libuv's pool, 32 bytes; the inputs are copied at once. Password and salt of at most 64 bytes. Missing where
   * the processor lacks the instructions that make it faster than Node's.
   */
  pbkdf2?(password: Uint8Array, salt: Uint8Array, iterations: number): Promise<Buffer>

  // --- blake2b.c ---
  /** BLAKE2b-256 of head and data, without key parameter, 32 bytes to `into`. */
  blake2b256(head: Uint8Array, data: Uint8Array, into: Uint8Array): void

  // --- xts.c: crypto/file-cipher.ts ---
  /** AES-256-XTS with a key of 64 bytes, which is copied, for this thread. Undefined where this Node's OpenSSL cannot be reached. */
  makeXts(key: Uint8Array): NativeXts | undefined
  /** All of `from`, which stands at `position` of file number `file`, to the start of `to`; both multiples of 16. `open`: decrypts; blocks of zeros stay zeros. */
  xtsCrypt(xts: NativeXts, open: boolean, file: number, position: number, from: Uint8Array, to: Uint8Array): void

  // --- items.c (archive.md §4) ---
  /**
   * References of the whole items at the start of a stream: words status (0 all read, 1 an item is cut off, 2 malformed), bytes
   * consumed, items with chunks that are whole files, and parts; then for each reference where its id lies, size, csize, and 1
   * for a part.
   */
  itemReferences(stream: Uint8Array): Uint32Array

  // --- release.c ---
  /**
   * Counts references down in the buckets of a chunks index. `references`: what itemReferences gives, behind its four words. Size and
   * csize of those that count, then pairs: the number of a reference, and 0 if it was the last one, 1 if the index knows of none.
   */
  releaseReferences(buckets: Uint8Array, stream: Uint8Array, references: Uint32Array, parts: boolean): Float64Array

  // --- deletion.c: `ids` lie one behind the other ---
  /**
   * Marks the bucket of each id deleted, in buckets of a key and `valueWords` words, after these went to `words`. An id that has none gets
   * 0xffffffff as its first word. Returns how many had one.
   */
  takeOutBuckets(buckets: Uint8Array, valueWords: number, ids: Uint8Array, words: Uint32Array): number
  /**
   * Enters ids into buckets of one word: words[0], words[stride] … One that is there stays as it is, its number goes to `known`. There are more
   * empty buckets than ids.
   */
  enterBuckets(buckets: Uint8Array, ids: Uint8Array, words: Uint32Array, stride: number, known: Uint32Array): [emptied: number, known: number]
  /**
   * Entries of buckets of one word, of those whose word is below `limit`, as they stand in hints: id, array of the word. `packed` has 41 bytes
   * for each. Bytes written and entries in them.
   */
  packShadow(buckets: Uint8Array, limit: number, packed: Uint8Array): [bytes: number, entries: number]
  /** The inverse, from `position` on, for as many entries as are just so and `ids` has room for. */
  unpackShadow(packed: Uint8Array, position: number, ids: Uint8Array, words: Uint32Array): [bytes: number, entries: number]
  /** DELETE entries, one behind the other. */
  frameDeletes(ids: Uint8Array, entries: Uint8Array): void
  /** Lengths of the entries of a file at offsets[first], offsets[first + stride] …; returns how many could be read before it ended. */
  entryLengths(fd: number, offsets: Uint32Array, first: number, stride: number, count: number, lengths: Uint32Array): number

  // --- files.c: system calls that Node lacks, all without following a final symlink ---
  /** `chosen`: names to look at, in this order, each with a NUL behind it; empty: all that there are. A path may be longer than PATH_MAX, here and in the next three. */
  readDirectoryAsync(path: Uint8Array, want: number, chosen: Uint8Array): Promise<DirectoryListing>
  /** One object: a row of statStride values and its packed attributes. */
  readAttributes(path: Uint8Array, want: number): { stat: BigInt64Array; attributes: Buffer | undefined }
  /** O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC, with O_NOATIME where permitted. */
  openForReading(path: Uint8Array): number
  readLink(path: Uint8Array): Buffer
  /** Path to below `rootFd` by openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; where the kernel lacks it, component by component with O_NOFOLLOW. */
  openBeneath(rootFd: number, path: Uint8Array, flags: number, mode: number): number
  fstatat(dirFd: number, name: Uint8Array): BigInt64Array
  mkdirat(dirFd: number, name: Uint8Array, mode: number): void
  mknodat(dirFd: number, name: Uint8Array, mode: number, rdev: number): void
  symlinkat(target: Uint8Array, dirFd: number, name: Uint8Array): void
  linkat(oldDirFd: number, oldName: Uint8Array, newDirFd: number, newName: Uint8Array): void
  unlinkat(dirFd: number, name: Uint8Array, directory: boolean): void
  /** name empty: the descriptor itself (AT_EMPTY_PATH). uid or gid -1 leaves it. */
  fchownat(dirFd: number, name: Uint8Array, uid: number, gid: number): void
  fchmodat(dirFd: number, name: Uint8Array, mode: number): void
  /** name empty: the descriptor itself. Any time: past what the host knows, the last that it does. */
  utimensat(dirFd: number, name: Uint8Array, atimeNs: bigint, mtimeNs: bigint): void
  /** Linux FS_*_FL bits. */
  getFsFlags(fd: number): number
  setFsFlags(fd: number, flags: number): void
  /** Object = descriptor, or dirFd + name (not following a symlink). */
  setxattrat(dirFd: number, name: Uint8Array, attribute: Uint8Array, value: Uint8Array): void
  getxattrat(dirFd: number, name: Uint8Array, attribute: Uint8Array): Buffer
  /** fallocate(2): mode bits KEEP_SIZE 1, PUNCH_HOLE 2, ZERO_RANGE 16. */
  fallocate(fd: number, mode: number, offset: number, length: number): void
  /** lseek(2) with SEEK_DATA (3) or SEEK_HOLE (4); -1 for ENXIO. */
  seekHole(fd: number, offset: number, whence: number): number
  /** sync_file_range/posix_fadvise(DONTNEED) over a range just written or read; best effort, never throws. */
  dropCache(fd: number, offset: number, length: number): void
  /** Has the kernel begin to write a range just written to the disk; best effort, never throws. It stays in memory. */
  startWriteback(fd: number, offset: number, length: number): void
  /** posix_fadvise(2): SEQUENTIAL 2, WILLNEED 3, DONTNEED 4; length 0 is up to the end. Never throws: it is advice. */
  advise(fd: number, offset: number, length: number, advice: number): void
  /** passwd and group by number or name, undefined if unknown. Bytes. */
  userName(uid: number): Buffer | undefined
  groupName(gid: number): Buffer | undefined
  userId(name: Uint8Array): number | undefined
  groupId(name: Uint8Array): number | undefined
  /** Sets the process umask and returns the old one; works in any thread (Node's own does not in workers). */
  umask(mask: number): number
  /** _exit(2). */
  exitNow(code: number): void
  /** Canonical name that the resolver gives for this host (getaddrinfo AI_CANONNAME), or the host name. */
  canonicalHostName(): string

  // --- pages_binding.cc: between one piece of memory and pages of a shared slab, which nobody else may be using ---
  /** `plain` to the pages, from their byte `start` on. */
  scatterPages(slab: Uint8Array, numbers: Uint32Array, pageBytes: number, start: number, plain: Uint8Array): void
  /** Bytes [from, to) of the pages to `into` at `at`. */
  gatherPages(slab: Uint8Array, numbers: Uint32Array, pageBytes: number, from: number, to: number, into: Uint8Array, at: number): void

  /** Gives the whole pages of `memory` back to the host: they read as zeros from then on. For memory that nobody will use any more but that only a collection would free. */
  giveBackPages(memory: Uint8Array): void
  /** To the beginning of `to`, which has room for it. Either may be shared memory, which V8 copies slowly; nobody writes to it meanwhile. */
  copyMemory(from: Uint8Array, to: Uint8Array): void
  /** Zeros, from the beginning of a page on: what is written with O_DIRECT has to lie so. Memory that V8 does not count. */
  alignedMemory(length: number): Uint8Array
  /** Gives back what the process' malloc keeps of freed memory. Milliseconds for each 100 MB, in which other threads may have to wait for memory. */
  trimHeap(): void

  // --- chunk_rows.c (archive.md §4) ---
  /**
   * Reads `count` MessagePack entries [id, size, csize] at `position` into rows of 40 bytes (engine/archive/chunk-list.ts). Returns
   * the position after them, -1 if they are not just such entries or end early.
   */
  unpackChunkRows(data: Uint8Array, position: number, count: number, rows: Uint8Array): number

  // --- xxh64.c, index_binding.cc: passes over index files (repository.md §5) ---
  /** State of an XXH64 with seed 0; bytes of the caller. */
  xxh64Begin(): Buffer
  /** SharedArrayBuffer memory is allowed. */
  xxh64Update(state: Buffer, data: Uint8Array): void
  /** The hash of all that came so far; more may follow. */
  xxh64Digest(state: Buffer): bigint
  /**
   * Counts whole buckets of `bucketBytes` by the uint32 at `markOffset` of each: below `deletedMark` it is used, above it empty.
   */
  countBuckets(buckets: Uint8Array, bucketBytes: number, markOffset: number, deletedMark: number): [used: number, empty: number]

  // --- tree.c: items of an archive as columns; arguments as in native/tree_binding.cc, used by fs/tree-image.ts ---
  /** `key`: eight random bytes, by which names are looked for. */
  makeTree(showParts: boolean, key: Uint8Array): NativeTree
  treeAdd(tree: NativeTree, bytes: Uint8Array, leftOut: (path: Buffer, source: Buffer | undefined) => void): number
  treeLayout(tree: NativeTree, layout: Float64Array): void
  treeWrite(tree: NativeTree, image: Uint8Array, chunks: Uint8Array): void

  // --- answers.c: what receiveRequest answers by itself ---
  /**
   * From now on this thread's receiveRequest answers what the kernel asks about the files of a tree, until hideTree. `columns` as in
   * native/answers_binding.cc; at each answer `lastUse` (one number) gets what `clock` (one number) is counted up to. `handed`, one byte for
   * each row, and `handedOpens` are those of HandedFiles.
   */
  showTree(root: number, above: number, columns: readonly ArrayBufferView[], suppliedTimeNs: bigint, rootTimeNs: bigint, ttlSeconds: number, bare: boolean, lastUse: Float64Array, clock: Float64Array, generation: number, handed: Uint8Array, handedOpens: Float64Array, references: Float64Array): void
  hideTree(root: number): void

  // --- arrivals.c: new small files, which receiveRequest answers for while their directory is lent ---
  /**
   * Memory for all loans of this thread, until the next call: `files` and `known` aligned to 8 bytes; `terms` (16) and `times` (4) are read by lendDirectory, in the order of
   * native/arrivals_binding.cc. `key`: 16 random bytes.
   */
  openArrivals(files: Uint8Array, names: Uint8Array, data: Uint8Array, known: Uint8Array, terms: Float64Array, times: BigInt64Array, key: Uint8Array): void
  /** Names that are in the directory, each with its length in a byte before it. False if it cannot be. Until endLoan no other JavaScript may run that looks at what is lent. */
  lendDirectory(names: Uint8Array): boolean
  /** How many files arrived. terms[0]: bytes of their contents; times[0]: of the directory, times[1]: the last one told. 0 if nothing is lent. */
  endLoan(): number

  /** What receiveRequest does with a request of `length` bytes: the length of the reply, which takes its place; 0 if it is not for here, -1 if there is none. */
  answerRequest(slot: Uint8Array, length: number): number

  // --- lz4.c ---
  /** An LZ4 block, without any header, into the start of `target`; the bytes written, or -1 if it is damaged or does not fit. */
  lz4Decode(block: Uint8Array, target: Uint8Array): number
  /** How many bytes an LZ4 block says that it gives, which costs a small part of decoding it; -1 if it is cut off or they are more than `most`. Its offsets are not looked at. */
  lz4PlainLength(block: Uint8Array, most: number): number
  /** Makes an LZ4 block of `data` (< 2 GiB) in `target`; the bytes written, or -1 if it does not fit. */
  lz4Encode(data: Uint8Array, target: Uint8Array): number

  // --- kernel.c: the FUSE device ---
  eventFd(): number
  /** Wakes whoever waits on it; callable from any thread. */
  signalEventFd(fd: number): void
  /** The device to serve: requests come into the slot, and replies are taken from it. `timeoutMs` bounds each wait (-1: nothing does). */
  openDevice(fuseFd: number, wakeFd: number, slot: Uint8Array, timeoutMs: number): NativeDevice
  /**
   * Gives the kernel the first `replyLength` bytes of the slot (0: there is no reply), then waits for a request or a signal on wakeFd. Returns
   * the request's length, 0 when woken or after timeoutMs (`soon`: or when nothing was asked for 20 ms), -1 when the file system was unmounted (ENODEV). If the kernel did not take the
   * reply, it does not wait, and returns -1 less the errno (ENOENT: who asked was interrupted). Interrupted waits and requests aborted
   * meanwhile are retried inside. What the trees of showTree can answer is answered, and not returned.
   */
  receiveRequest(device: NativeDevice, replyLength: number, soon: boolean): number
  /** mount(2); the numbers of MS_* are Linux'. */
  mountAt(source: Uint8Array, target: Uint8Array, type: Uint8Array, flags: number, data: Uint8Array): void
  /** A connected pair of Unix stream sockets, close-on-exec. */
  socketPair(): [number, number]
  /** Receives one descriptor by SCM_RIGHTS, blocking until the peer sends or closes; -1 if closed without. */
  receiveDescriptor(socketFd: number): number
}

let loaded: Native | undefined

/** The addon, loaded at first use. BorgError with the remedy if it was not built. */
export function native(): Native {
  loaded ??= load()
  return loaded
}

function load(): Native {
  const require = createRequire(import.meta.url)
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const file = join(folder, 'build', 'Release', 'borgfs.node')
    if (existsSync(file)) return require(file) as Native
    const parent = dirname(folder)
    if (parent === folder) break
    folder = parent
  }
  throw new BorgError('Error', 'The native part of borgfs is not built. Run "npm run build:native" in its folder (it needs python3, make and g++).')
}
