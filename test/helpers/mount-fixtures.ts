/** Parts for testing the drive's core without a kernel: items, a recording call, an engine that answers from memory. */
import { createHash } from 'node:crypto'
import { ChunkList } from '../../src/engine/archive/chunk-list.js'
import type { Item } from '../../src/engine/archive/item.js'
import type { Answer, Call } from '../../src/fs/core.js'
import { LATER } from '../../src/fs/core.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import type { ArchiveHead, ArchiveInfo, ChunksReply, ChunksRequest, CommitReply, EngineRequest, MountView, ToEngine } from '../../src/fs/engine-port.js'
import { pageBytes } from '../../src/fs/chunk-cache.js'
import { TreeBuilder } from '../../src/fs/tree-builder.js'
import type { ShapeOptions, ViewOptions } from '../../src/fs/tree-options.js'
import { shownTree } from '../../src/fs/tree-view.js'
import type { ArchiveTreeData } from '../../src/fs/tree-columns.js'
import { Errno } from '../../src/fs/types.js'
import type { LogLevel } from '../../src/engine/log.js'

export const fileMode = 0o100644, directoryMode = 0o040755, linkMode = 0o120777

export function item(path: string | Buffer, fields: Partial<Item> = {}): Item {
  return { path: typeof path === 'string' ? Buffer.from(path) : path, mode: fileMode, uid: 10, gid: 20, user: null, group: null, mtimeNs: 1_000_000_007n, ...fields }
}

export class RecordingLog {
  readonly lines: string[] = []
  write(level: LogLevel, _topic: string, message: string): void {
    this.lines.push(`${level}: ${message}`)
  }
}

export type TreeOptions = ShapeOptions & ViewOptions

export function treeOptions(changes: Partial<TreeOptions> = {}): TreeOptions & { log: RecordingLog } {
  return {
    uid: 1, gid: 2, timeNs: 5n, rootTimeNs: 6n, numericIds: true, owners: { user: () => undefined, group: () => undefined },
    umask: 0, showParts: false, log: new RecordingLog(), ...changes,
  } as TreeOptions & { log: RecordingLog }
}

export function build(items: Iterable<Item>, options: TreeOptions = treeOptions()): ArchiveTreeData {
  const builder = new TreeBuilder(options)
  for (const each of items) builder.add(each)
  return shownTree(builder.finish(), options)
}

/** Plaintexts by id, and the chunk list of a file made of them. */
export class Contents {
  readonly byId = new Map<string, Buffer>()
  list(...pieces: Buffer[]): ChunkList {
    const list = new ChunkList()
    for (const piece of pieces) {
      const id = createHash('sha256').update(piece).digest()
      this.byId.set(id.toString('hex'), piece)
      list.add(id, piece.length, piece.length)
    }
    return list
  }
}

/** A call whose late answer can be read; `later()` is undefined until it came. */
export function call<T>(): Call<T> & { later(): T | Errno | undefined; deferred: boolean } {
  let late: T | Errno | undefined
  const made = {
    uid: 0, gid: 0, pid: 1, deferred: false,
    defer() {
      made.deferred = true
      return (answer: T | Errno) => {
        // Late bytes are only valid now.
        late = answer instanceof Uint8Array || isPieces(answer) ? Buffer.concat([answer].flat()) as unknown as T : answer
      }
    },
    later: () => late,
  }
  return made
}

const isPieces = (answer: unknown): answer is readonly Uint8Array[] => Array.isArray(answer) && answer.every((piece) => piece instanceof Uint8Array)

/** Holds requests back until `answer`, as another thread would. */
export class FakeEngine {
  readonly client: EngineClient
  readonly asked: EngineRequest[] = []
  readonly log = new RecordingLog()
  readonly trees = new Map<string, ArchiveTreeData>()
  readonly heads = new Map<string, ArchiveHead>()
  /** Chunk rows of trees that have none, by archive. */
  readonly laterChunks = new Map<string, Uint8Array>()
  readonly broken = new Set<string>()
  /** What a commit gives; it fails if there is nothing. */
  committed: CommitReply | undefined
  readonly #queue: { id: number; request: EngineRequest }[] = []
  #slab: Buffer = Buffer.alloc(0)

  constructor(readonly contents: Contents) {
    this.client = new EngineClient({ post: (message) => this.#take(message) })
  }

  #take(message: ToEngine): void {
    if (message.type === 'log') return this.log.write(message.level, message.topic, message.message)
    if (message.type !== 'request') return
    this.asked.push(message.request)
    this.#queue.push(message)
  }

  get waiting(): number {
    return this.#queue.length
  }

  /** Answers everything that waits, also what is asked meanwhile; or the first of it. */
  answer(count = Infinity): void {
    for (let next = this.#queue.shift(); next; next = --count > 0 ? this.#queue.shift() : undefined) {
      const { id, request } = next
      try {
        this.client.deliver({ type: 'reply', id, value: this.#value(request) })
      } catch (error) {
        this.client.deliver({ type: 'error', id, error: { code: 'EIO', msgid: undefined, message: (error as Error).message } })
      }
    }
  }

  /** Everything that waits fails. */
  fail(code = 'EIO'): void {
    for (const { id } of this.#queue.splice(0)) this.client.deliver({ type: 'error', id, error: { code, msgid: undefined, message: 'failed' } })
  }

  #value(request: EngineRequest): unknown {
    switch (request.kind) {
      case 'start':
        this.#slab = Buffer.from(request.slab)
        return undefined
      case 'tree-chunks': return this.laterChunks.get(request.archive)
      case 'tree': {
        const tree = this.trees.get(request.archive)
        if (!tree) throw new Error('metadata damaged')
        return tree
      }
      case 'head': return this.heads.get(request.archive) ?? { facts: { comment: Buffer.from('a comment'), hostname: Buffer.from('host'), username: Buffer.from('user') }, root: undefined }
      case 'chunks': return this.#chunks(request)
      case 'statfs': return { blocks: 10, bfree: 5, bavail: 4, files: 3, ffree: 2, bsize: 4096, frsize: 4096, namelen: 255 }
      case 'commit': {
        if (!this.committed) throw new Error('not here')
        return this.committed
      }
    }
  }

  #chunks({ ids, sizes, pages, starts }: ChunksRequest): ChunksReply {
    const data: Buffer[] = [], failures = []
    for (let index = 0; index < sizes.length; index++) {
      const hex = Buffer.from(ids.subarray(index * 32, index * 32 + 32)).toString('hex')
      const bytes = this.contents.byId.get(hex)
      if (!bytes || this.broken.has(hex)) {
        failures.push({ index, code: 'EIO', message: 'Data integrity error: id does not match' })
        continue
      }
      if (bytes.length !== sizes[index]) throw new Error('wrong size asked')
      if (pages.length === 0) data.push(bytes)
      else for (const [at, byte] of bytes.entries()) this.#slab[pages[Math.floor((starts[index]! + at) / pageBytes)]! * pageBytes + ((starts[index]! + at) % pageBytes)] = byte
    }
    return { data: Buffer.concat(data), failures }
  }
}

export function archiveInfo(name: string, id = name): ArchiveInfo {
  return { name: Buffer.from(name, 'latin1'), id, timeNs: 77n }
}

export function mountView(archives: ArchiveInfo[], changes: Partial<MountView> = {}): MountView {
  return { kind: 'repository', archives, uid: 1, gid: 2, umask: 0, mountTimeNs: 5n, cacheBytes: 1024 * 1024, allowDamagedFiles: false, ...changes }
}

/** The value of an answer that may be late. */
export function settled<T>(answer: Answer<T>, asked: ReturnType<typeof call<T>>): T | Errno | undefined {
  return answer === LATER ? asked.later() : answer as T | Errno
}
