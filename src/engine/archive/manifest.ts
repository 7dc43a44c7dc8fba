/** The root object: archives by name (archive.md §2). */
import type { Key } from '../crypto/key.js'
import { TamInvalid, TamRequired, TamUnsupportedSuite } from '../crypto/errors.js'
import { packWithTam, unpackWithTam } from '../crypto/tam.js'
import { idBytes } from '../constants.js'
import { IntegrityError } from '../errors.js'
import { type ChunkId, chunkId, idHex, manifestId } from '../ids.js'
import { KnownKeys, MsgpackError, type MsgReader, type MsgValue } from '../msgpack.js'
import type { Repository, Transaction } from '../repository/repository.js'
import { ObjectNotFound } from '../repository/errors.js'
import type { RepoObjects } from '../store/repo-objects.js'
import { bytesOf, shownText } from '../text.js'
import { ArchiveDoesNotExist, MandatoryFeatureUnsupported, NoManifest, UnsupportedManifest } from './errors.js'
import { itemKeys } from './item-keys.js'
import { formatTimestamp, nowMicros, parseTimestamp } from './timestamps.js'

export interface ArchiveInfo {
  /** Byte string. */
  readonly name: string
  readonly id: ChunkId
  /** UTC text as stored. */
  readonly time: string
}

/** What an operation does to the repository: feature flags may forbid it, except for `unchecked` ones, which only look. */
export type OperationClass = 'read' | 'check' | 'write' | 'delete' | 'unchecked'

const futureMarker = Buffer.from('c1c1c1c1', 'hex')
const maxNameBytes = 255

export class Manifest {
  /** By byte string of the name, in the order stored. */
  readonly archives: Map<string, ArchiveInfo>
  readonly config: Map<string, MsgValue>
  #itemKeys: Set<string>
  timestamp: string
  /** It was read, and its TAM is right. */
  tamVerified = false
  /** Id of the manifest's plaintext: another one means that somebody wrote meanwhile. */
  id: ChunkId

  private constructor(archives: Map<string, ArchiveInfo>, config: Map<string, MsgValue>, keys: Iterable<string>, timestamp: string, id: ChunkId) {
    this.archives = archives
    this.config = config
    this.#itemKeys = new Set(keys)
    this.timestamp = timestamp
    this.id = id
  }

  /** Of a new repository. */
  static empty(key: Key): Manifest {
    return new Manifest(new Map(), key.tamRequired ? new Map([['tam_required', true as MsgValue]]) : new Map(), itemKeys, '', manifestId)
  }

  /** The stored object, which also tells the key type. NoManifest. */
  static async readObject(repository: Repository): Promise<Buffer> {
    try {
      return await repository.get(manifestId)
    } catch (error) {
      if (error instanceof ObjectNotFound) throw new NoManifest()
      throw error
    }
  }

  /** Decodes and authenticates it. `tamRequired`: whether one without TAM is refused. TAM errors, UnsupportedManifest, IntegrityError. */
  static async load(object: Buffer, objects: RepoObjects, location: string, operation: OperationClass | undefined, tamRequired = objects.key.tamRequired): Promise<Manifest> {
    const { key } = objects
    const plain = await objects.parse(manifestId, object)
    if (plain.subarray(0, 4).equals(futureMarker)) throw new UnsupportedManifest()
    let archives: Map<string, ArchiveInfo> | undefined
    const { map, tam, suite } = unpackWithTam(plain, key, 'manifest', { archives: reader => (archives = readArchives(reader)) })
    if (tam === 'wrong') throw new TamInvalid('manifest')
    if (tam === 'absent' && tamRequired) throw new TamRequired(location)
    if (tam === 'unsupported' && tamRequired) throw new TamUnsupportedSuite(suite ?? '')
    const version = map.get('version')
    if (version !== 1 && version !== 2) throw new IntegrityError(`Manifest: version ${String(version)} is not supported`)
    const timestamp = map.get('timestamp')
    const config = map.get('config')
    const keys = map.get('item_keys')
    if (!archives) throw new IntegrityError('Manifest: the list of archives is missing')
    const manifest = new Manifest(
      archives,
      config instanceof Map ? config : new Map(),
      [...itemKeys, ...(Array.isArray(keys) ? keys.filter(Buffer.isBuffer).map(value => value.toString('latin1')) : [])],
      Buffer.isBuffer(timestamp) ? timestamp.toString('latin1') : '',
      key.idHash(plain),
    )
    manifest.tamVerified = tam === 'valid'
    if (operation) manifest.#refuseUnknownFeatures(operation)
    return manifest
  }

  #refuseUnknownFeatures(operation: OperationClass): void {
    if (operation === 'unchecked') return
    const flags = this.config.get('feature_flags')
    const flagsOfClass = flags instanceof Map ? flags.get(operation) : undefined
    const mandatory = flagsOfClass instanceof Map ? flagsOfClass.get('mandatory') : undefined
    // This program, like Borg 1.2 and 1.4, knows no feature by name.
    if (Array.isArray(mandatory) && mandatory.length > 0) throw new MandatoryFeatureUnsupported(mandatory.filter(Buffer.isBuffer).map(shownText))
  }

  /** Names of all features that some operation must know. */
  mandatoryFeatures(): string[] {
    const flags = this.config.get('feature_flags')
    const names: string[] = []
    for (const value of flags instanceof Map ? flags.values() : []) {
      const mandatory = value instanceof Map ? value.get('mandatory') : undefined
      if (Array.isArray(mandatory)) names.push(...mandatory.filter(Buffer.isBuffer).map(shownText))
    }
    return names
  }

  /** Keys that items of this repository may have, as byte strings. */
  get itemKeys(): ReadonlySet<string> {
    return this.#itemKeys
  }

  /** ArchiveDoesNotExist. `name` is a byte string. */
  get(name: string): ArchiveInfo {
    const info = this.archives.get(name)
    if (!info) throw new ArchiveDoesNotExist(shownText(bytesOf(name)))
    return info
  }

  /** By time, equal times by name. */
  sorted(): ArchiveInfo[] {
    return [...this.archives.values()].sort(byTime)
  }

  /** Stores it in a transaction; the commit is the caller's. Its timestamp is later than any before. */
  async write(tx: Transaction, objects: RepoObjects): Promise<void> {
    const { key } = objects
    if (key.tamRequired) this.config.set('tam_required', true)
    const previous = this.timestamp ? parseTimestamp(this.timestamp) : undefined
    const timestamp = formatTimestamp(Math.max(nowMicros(), (previous ?? 0) + 1))
    const archives = new Map<string, MsgValue>()
    for (const [name, { id, time }] of this.archives) archives.set(name, new Map<string, MsgValue>([['id', id], ['time', Buffer.from(time)]]))
    const packed = packWithTam(new Map<string, MsgValue>([
      ['version', 1], ['archives', archives], ['timestamp', Buffer.from(timestamp)], ['config', this.config],
      ['item_keys', [...this.#itemKeys].sort().map(bytesOf)],
    ]), key, 'manifest')
    await tx.put(manifestId, await objects.seal(packed))
    this.timestamp = timestamp
    this.id = key.idHash(packed)
  }
}

/** The usual order: by time, equal times by name. */
export function byTime(a: ArchiveInfo, b: ArchiveInfo): number {
  return a.time < b.time ? -1 : a.time > b.time ? 1 : a.name < b.name ? -1 : 1
}

/** As it lies in the manifest: there may be hundreds of thousands, of which most commands look at the name and the time only. */
class ListedArchive implements ArchiveInfo {
  readonly name: string
  readonly time: string
  readonly #bytes: Buffer
  readonly #idAt: number
  #id: ChunkId | undefined

  constructor(name: string, time: string, bytes: Buffer, idAt: number) {
    this.name = name
    this.time = time
    this.#bytes = bytes
    this.#idAt = idAt
  }

  /** A view of the manifest's bytes. */
  get id(): ChunkId {
    return (this.#id ??= chunkId(this.#bytes.subarray(this.#idAt, this.#idAt + idBytes)))
  }

  /** The id in hex, without a view of it. */
  get hex(): string {
    return this.#bytes.toString('hex', this.#idAt, this.#idAt + idBytes)
  }
}

/** The archive's id in hex, for lists of thousands. */
export function hexOf(info: ArchiveInfo): string {
  return info instanceof ListedArchive ? info.hex : idHex(info.id)
}

const entryKeys = new KnownKeys(['id', 'time'])
/** What stands before the id and before the time in an entry as everybody writes it: a map of two, `id`, raw of 32; `time`, raw of 26. */
const beforeId = '\x82\xa2id\xda\0 ', beforeTime = '\xa4time\xba'
const timeBytes = 26
const usualEntryBytes = beforeId.length + idBytes + beforeTime.length + timeBytes

/** The entries of the map at the reader's position. */
function readArchives(reader: MsgReader): Map<string, ArchiveInfo> {
  const archives = new Map<string, ArchiveInfo>()
  const { bytes, end } = reader
  const count = reader.mapHeader()
  // One text of which names and times are parts, and in which the usual is found: a call for each of them would take longer than all the rest.
  const start = reader.position
  const text = bytes.toString('latin1', start, end)
  for (let left = count; left > 0; left--) {
    const from = reader.position, lead = reader.peek()
    // Most names are short.
    const short = lead >= 0xa0 && lead <= 0xbf
    const nameAt = short ? from + 1 : reader.anyRaw()
    const at = short ? nameAt + (lead & 0x1f) : reader.position
    const timeAt = at + usualEntryBytes - timeBytes
    if (timeAt + timeBytes <= end && text.startsWith(beforeId, at - start) && text.startsWith(beforeTime, timeAt - beforeTime.length - start)) {
      reader.position = timeAt + timeBytes
      const name = text.substring(nameAt - start, at - start)
      archives.set(name, new ListedArchive(name, text.substring(timeAt - start, timeAt - start + timeBytes), bytes, at + beforeId.length))
      continue
    }
    reader.position = from
    const oddNameAt = reader.anyRaw()
    const name = text.substring(oddNameAt - start, reader.position - start)
    archives.set(name, readEntry(reader, name))
  }
  return archives
}

function readEntry(reader: MsgReader, name: string): ArchiveInfo {
  let id: Buffer | undefined, time: string | undefined
  try {
    for (let count = reader.mapHeader(); count > 0; count--) {
      const key = reader.key(entryKeys)
      if (key === 'id') id = reader.raw()
      else if (key === 'time') time = reader.rawByteString()
      else reader.skip()
    }
  } catch (error) {
    if (!(error instanceof MsgpackError)) throw error
    id = undefined
  }
  if (id?.length !== idBytes || time === undefined) throw new IntegrityError(`Manifest: the entry of archive ${shownText(bytesOf(name))} is malformed`)
  return { name, id: chunkId(id), time }
}

/** Whether a name can be stored so that every Borg can read it (archive.md §2). */
export function isValidArchiveName(name: Uint8Array): boolean {
  return name.length > 0 && name.length <= maxNameBytes && !name.includes(0x2f) && !name.includes(0)
}

/** What unfinished archives have behind the name that they were to have (archive.md §8). */
export const checkpointSuffix = /\.checkpoint(?:\.\d+)?$/

export function isCheckpointName(name: string): boolean {
  return checkpointSuffix.test(name)
}
