/**
 * How Borg's hash tables lie in their bytes (repository.md §5): 18 bytes of header, then B buckets of a 32-byte key and some uint32 values, all
 * little endian; B is one of a row of numbers. The same in files and in memory.
 */
import { idBytes } from '../constants.js'
import { IntegrityError } from '../errors.js'

export const keyWords = idBytes / 4
/** In the place of the first value. */
export const emptyMark = 0xffffffff, deletedMark = 0xfffffffe
export const headerBytes = 18
const magic = 'BORG_IDX'
/** Borg's largest reference count, which stays. */
export const maxValue = 0xfffffbff
/** In the place of a first value: there is no such entry. */
export const absent = emptyMark
const maxLoad = 0.75, minLoad = 0.25, minEmpty = 0.07

const bucketCounts = [
  1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101, 262147, 445649, 757607, 1287917, 2189459, 3065243, 4291319, 6007867, 8410991,
  11775359, 16485527, 23079703, 27695653, 33234787, 39881729, 47858071, 57429683, 68915617, 82698751, 99238507, 119086189, 144378011,
  157223263, 173476439, 190253911, 209915011, 230493629, 253169431, 278728861, 306647623, 337318939, 370742809, 408229973, 449387209,
  493428073, 543105119, 596976533, 657794869, 722676499, 795815791, 874066969, 962279771, 1057701643, 1164002657, 1280003147, 1407800297,
  1548442699, 1703765389, 1873768367, 2062383853,
]

/** The first 18 bytes of a file. */
export interface TableHeader {
  readonly entries: number
  readonly buckets: number
}

/** IntegrityError unless it is the header of such a table, whose file is as long as it says. */
export function parseTableHeader(header: Buffer, valueWords: number, fileBytes: number): TableHeader {
  if (header.length < headerBytes) throw new IntegrityError('the index ends early')
  const [entries, buckets] = [header.readInt32LE(8), header.readInt32LE(12)]
  if (header.toString('latin1', 0, 8) !== magic) throw new IntegrityError('the index does not begin with BORG_IDX')
  if (header[16] !== idBytes || header[17] !== valueWords * 4) throw new IntegrityError('the index has keys or values of another size')
  if (buckets < 1 || entries < 0 || entries > buckets || fileBytes !== headerBytes + buckets * (keyWords + valueWords) * 4) {
    throw new IntegrityError('the length of the index does not fit its header')
  }
  return { entries, buckets }
}

export function packTableHeader({ entries, buckets }: TableHeader, valueWords: number): Buffer {
  const header = Buffer.alloc(headerBytes)
  header.write(magic, 'latin1')
  header.writeInt32LE(entries, 8)
  header.writeInt32LE(buckets, 12)
  header[16] = idBytes
  header[17] = valueWords * 4
  return header
}

/** How many buckets a table of so many entries has. */
export function bucketsFor(entries: number): number {
  return bucketCounts.find(count => !tooFull(entries, count)) ?? bucketCounts.at(-1)!
}

export function nextCount(buckets: number): number {
  return bucketCounts.find(count => count > buckets) ?? buckets * 2
}

/** The number of buckets after a deletion: the same, or one step fewer. */
export function countAfterDeletion(entries: number, buckets: number): number {
  if (entries >= minLoad * buckets || buckets <= bucketCounts[0]!) return buckets
  return bucketCounts.findLast(count => count < buckets) ?? buckets
}

export function tooFull(entries: number, buckets: number): boolean {
  return entries > maxLoad * buckets
}

/** With hardly an empty bucket every search for an unknown key would be a long one, or a full pass. */
export function tooFewEmpty(empty: number, buckets: number): boolean {
  return empty < 1 + minEmpty * buckets
}

/** Bucket of the key in a table that lies in memory, or -1. */
export function search(words: Uint32Array, key: Uint32Array, buckets: number, stride: number): number {
  const [k0, k1] = [key[0]!, key[1]!]
  let bucket = k0 % buckets
  for (let probes = 0; probes < buckets; probes++) {
    const at = bucket * stride
    const mark = words[at + keyWords]!
    if (mark === emptyMark) return -1
    if (words[at] === k0 && words[at + 1] === k1 && mark !== deletedMark) {
      let word = 2
      while (word < keyWords && words[at + word] === key[word]) word++
      if (word === keyWords) return bucket
    }
    if (++bucket === buckets) bucket = 0
  }
  return -1
}
