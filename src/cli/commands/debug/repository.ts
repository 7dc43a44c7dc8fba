/** `debug dump-manifest`, `debug dump-hints`, `debug dump-repo-objs`, `debug search-repo-objs` (commands.md §10). */
import { writeFileSync } from 'node:fs'
import { decompress } from '../../../engine/codec/decompress.js'
import type { Key } from '../../../engine/crypto/key.js'
import { CommandError } from '../../../engine/errors.js'
import { type ChunkId, idHex, manifestId } from '../../../engine/ids.js'
import { type MsgValue, unpackMap } from '../../../engine/msgpack.js'
import { tagCommit, tagDelete, tagPut } from '../../../engine/repository/entry.js'
import { idsInDiskOrder, type LowLevelEntry, scanEntries } from '../../../engine/repository/low-level-scan.js'
import { verifyId } from '../../../engine/store/repo-objects.js'
import { escapedBytes } from '../../../engine/text.js'
import type { Command } from '../../command.js'
import { writeAnswer } from '../../output/answer-file.js'
import { dumpJson } from '../../output/dump-json.js'
import { print } from '../../output/stdout.js'
import { keyByObject } from './objects.js'

export const debugDumpManifest: Command = async context => {
  const { objects, repository } = await context.open(context.location('repository'), 'shared', 'unchecked')
  writeAnswer(context.positional('path')[0]!, dumpJson(unpackMap(await objects.parse(manifestId, await repository.get(manifestId)))))
}

export const debugDumpHints: Command = async context => {
  const { hints } = await context.openLocal(context.location('repository'), 'exclusive')
  const shadow = new Map<string, MsgValue>()
  for (const { id, segments } of hints.shadow.entries()) shadow.set(idHex(id), [...segments])
  // Keys that are numbers only JSON makes into text.
  const all = new Map<string, unknown>([['segments', hints.segments], ['compact', hints.compact], ['storage_quota_use', hints.quotaUse], ['shadow_index', shadow]])
  writeAnswer(context.positional('path')[0]!, dumpJson(all as Map<string, MsgValue>))
}

async function plainOf(key: Key, id: ChunkId, object: Buffer): Promise<Buffer> {
  const plain = await decompress(key.open(object, id))
  verifyId(key, id, plain)
  return plain
}

export const debugDumpRepoObjs: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'shared')
  const dump = (index: number, rest: string, plain: Uint8Array): void => {
    const name = `${String(index).padStart(8, '0')}${rest}.obj`
    print(`Dumping ${name}\n`)
    writeFileSync(name, plain)
  }
  let index = 0
  if (!context.flag('ghost')) {
    const key = await keyByObject(context, repository, undefined)
    for (const id of idsInDiskOrder(repository)) dump(index++, `_${idHex(id)}`, await plainOf(key, id, await repository.get(id)))
    return print('Done.\n')
  }
  const damaged = (segment: number, path: string, error: Error): void => context.log.message('error', 'borg.repository', `Segment ${segment} (${path}) has IntegrityError(s) [${error.message}] - skipping.`)
  let key: Key | undefined
  for (const { tag, object } of scanEntries(repository, { damaged })) {
    if (tag !== tagPut) continue
    key = await keyByObject(context, repository, object)
    break
  }
  const tagNames: Record<number, string> = { [tagPut]: 'put', [tagDelete]: 'del', [tagCommit]: 'commit' }
  const nameOf = ({ segment, offset, tag, id }: LowLevelEntry): string => `_${segment}_${offset}_${tagNames[tag]}${id ? `_${idHex(id)}` : ''}`
  for (const entry of scanEntries(repository, { segment: context.number('segment'), offset: context.number('offset'), damaged })) {
    dump(index++, nameOf(entry), entry.object ? await plainOf(key!, entry.id!, entry.object) : Buffer.alloc(0))
  }
  print('Done.\n')
}

const contextBytes = 32

export const debugSearchRepoObjs: Command = async context => {
  const wanted = searchTerm(context.positional('wanted')[0]!)
  const repository = await context.openLocal(context.location('repository'), 'shared')
  if (!wanted) throw new CommandError('search term needs to be hex:123abc or str:foobar style')
  const key = await keyByObject(context, repository, undefined)
  const overlap = wanted.length - 1
  let last: { id: ChunkId; plain: Buffer } | undefined
  let index = 0
  for (const id of idsInDiskOrder(repository)) {
    const plain = await plainOf(key, id, await repository.get(id))
    // Across the border to the object before.
    const before = last?.plain ?? Buffer.alloc(0)
    if (slice(before, -overlap).length + Math.min(overlap, plain.length) >= wanted.length && Buffer.concat([slice(before, -overlap), plain.subarray(0, overlap)]).includes(wanted)) {
      const around = Buffer.concat([slice(before, -(overlap + contextBytes)), plain.subarray(0, overlap + contextBytes)])
      print(finding(`${index} ${last ? idHex(last.id) : ''} | ${idHex(id)}`, wanted, around, around.indexOf(wanted)))
    }
    const at = plain.indexOf(wanted)
    if (at >= 0) print(finding(`${index} ${idHex(id)} #${occurrences(plain, wanted)}`, wanted, plain, at))
    last = { id, plain: Buffer.from(plain) }
    if (++index % 10_000 === 0) print(`${index} objects processed.\n`)
  }
  print('Done.\n')
}

function searchTerm(text: string): Buffer | undefined {
  const bytes = text.startsWith('str:') ? escapedBytes(text.slice(4)) : /^hex:(?:[0-9a-fA-F]{2})*$/.test(text) ? Buffer.from(text.slice(4), 'hex') : Buffer.alloc(0)
  return bytes.length > 0 ? bytes : undefined
}

function occurrences(bytes: Buffer, wanted: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + wanted.length)) count++
  return count
}

/** From `start`, which counts from the end if it is negative, as Python slices: -0 is the whole. */
function slice(bytes: Buffer, start: number, end = bytes.length): Buffer {
  return bytes.subarray(start < 0 ? Math.max(0, bytes.length + start) : Math.min(start, bytes.length), end)
}

function finding(what: string, wanted: Buffer, bytes: Buffer, at: number): string {
  // Nearer to the beginning than the context is long, Borg counts from the end: mostly nothing is left then.
  const before = at < contextBytes ? pythonSlice(bytes, at - contextBytes, at) : bytes.subarray(at - contextBytes, at)
  const after = bytes.subarray(at + wanted.length, at + wanted.length + contextBytes)
  const parts = [before, wanted, after]
  return `${what}: ${parts.map(part => part.toString('hex')).join(' ')} == ${parts.map(pythonBytes).join(' ')}\n`
}

function pythonSlice(bytes: Buffer, start: number, end: number): Buffer {
  const from = Math.max(0, bytes.length + start)
  return from < end ? bytes.subarray(from, end) : Buffer.alloc(0)
}

/** As Python shows bytes. */
function pythonBytes(bytes: Buffer): string {
  const quote = bytes.includes(0x27) && !bytes.includes(0x22) ? '"' : "'"
  let text = ''
  for (const byte of bytes) {
    if (byte === 0x5c || byte === quote.charCodeAt(0)) text += `\\${String.fromCharCode(byte)}`
    else if (byte === 9) text += '\\t'
    else if (byte === 10) text += '\\n'
    else if (byte === 13) text += '\\r'
    else text += byte < 32 || byte > 126 ? `\\x${byte.toString(16).padStart(2, '0')}` : String.fromCharCode(byte)
  }
  return `b${quote}${text}${quote}`
}
