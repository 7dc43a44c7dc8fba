/** incoming/ without a mount: its parts, what is in it, and what a later start would find. */
import { deepEqual } from 'node:assert/strict'
import { cpSync, rmSync } from 'node:fs'
import { type Answer, type Call, LATER } from '../../src/fs/core.js'
import { noNotices } from '../../src/fs/fuse/transport.js'
import { Attributes } from '../../src/fs/incoming/attributes.js'
import { Box } from '../../src/fs/incoming/box.js'
import { Handles } from '../../src/fs/incoming/handles.js'
import { Names } from '../../src/fs/incoming/names.js'
import { isFile, rootId, type StagedNode } from '../../src/fs/incoming/nodes.js'
import { Staging, type StagingOptions } from '../../src/fs/incoming/staging.js'
import type { Entry, Opened } from '../../src/fs/types.js'
import { call, Contents, FakeEngine } from './mount-fixtures.js'
import type { Sandbox } from './sandbox.js'

const common = { maxBytes: 1 << 20, place: 'incoming' as const, archiveIds: new Set<string>(), rootFacts: { mode: 0o040755, uid: 0, gid: 0, rdev: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n } }

export class StagedBox {
  readonly engine = new FakeEngine(new Contents())
  readonly box: Box
  readonly handles: Handles
  readonly names: Names
  readonly attributes: Attributes
  readonly #sandbox: Sandbox

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox
    this.box = new Box({ ...common, folder: sandbox.path('staging'), settleMs: 1e9, lingerMs: 1e9 }, this.engine.client, noNotices, { state() {} }, () => {
      throw new Error('no chunks here')
    })
    this.handles = new Handles(this.box)
    this.names = new Names(this.box, this.handles)
    this.attributes = new Attributes(this.box)
  }

  get root(): number {
    return this.box.root
  }

  mkdir(name: string, parent = this.root): number {
    return (this.names.mkdir(parent, Buffer.from(name), 0o755, call<Entry>()) as Entry).attr.ino
  }

  /** Open for reading and writing. */
  create(parent: number, name: string): { ino: number; fh: number } {
    const { entry, opened } = this.names.create(parent, Buffer.from(name), 0o644, 2, call()) as { entry: Entry; opened: Opened }
    return { ino: entry.attr.ino, fh: opened.fh }
  }

  /** Of a file that has them, and is closed. */
  file(parent: number, name: string, bytes: string, at = 0): number {
    const { ino, fh } = this.create(parent, name)
    this.handles.write(fh, at, Buffer.from(bytes), call<number>())
    this.handles.release(fh)
    return ino
  }

  open(ino: number, flags = 2): number {
    return (this.handles.open(ino, flags, call()) as Opened).fh
  }

  /** What became of it by now; LATER if nothing did. */
  asked<T>(ask: (call: Call<T>) => Answer<T>): () => Answer<T> {
    let answer: Answer<T> = LATER
    const now = ask({ uid: 0, gid: 0, pid: 1, defer: () => late => void (answer = late) })
    if (now !== LATER) answer = now
    return () => answer
  }

  commit(name: string | undefined): void {
    this.box.trees.commit(this.box.trees.find(name)!, { patient: true }, () => {})
  }

  /** All that is here. */
  get shown(): string[] {
    return shownIn(this.box.staging)
  }

  /** The same as a later start finds it, if this process ends now. `archives`: ids of those that are there. */
  shownLater(archives: readonly string[] = []): { shown: string[]; lostRecords: number } {
    return this.#later({ archiveIds: new Set(archives) }, () => {}, later => ({ shown: shownIn(later), lostRecords: later.lostRecords }))
  }

  /** What a start after the next start of the machine finds, and the one after that. `lose`: does to the folder what the machine's failure did. */
  afterFailure(lose: (folder: string) => void = () => {}): { shown: string[]; mtimesNs: bigint[] } {
    const look = (later: Staging): ReturnType<StagedBox['afterFailure']> => ({
      shown: shownIn(later), mtimesNs: Array.from(later.nodes.walk(later.nodes.get(rootId)!), ({ node }) => node).filter(isFile).map(({ mtimeNs }) => mtimeNs),
    })
    return this.#later({ boot: 'another' }, lose, (first, again) => {
      const found = look(first)
      first.close()
      deepEqual(look(again()), found)
      return found
    })
  }

  /** Another start over a folder. */
  start(folder: string, boot: string, chunks?: StagingOptions['chunks']): Staging {
    return new Staging({ ...common, folder, boot, chunks })
  }

  #later<T>(options: Partial<StagingOptions>, lose: (folder: string) => void, look: (later: Staging, again: () => Staging) => T): T {
    const folder = this.#sandbox.path('later')
    rmSync(folder, { recursive: true, force: true })
    cpSync(this.#sandbox.path('staging'), folder, { recursive: true })
    lose(folder)
    const start = (): Staging => new Staging({ ...common, folder, ...options })
    let later = start()
    const found = look(later, () => later = start())
    later.close()
    return found
  }
}

function shownIn(staging: Staging): string[] {
  const found: string[] = []
  for (const { node, path } of staging.nodes.walk(staging.nodes.get(rootId)!)) if (node.id !== rootId) found.push(`${path}: ${describe(staging, node)}`)
  return found.sort()
}

function describe(staging: Staging, node: StagedNode): string {
  const { id, mode, uid, gid, nlink, size, xattrs, target } = node
  const all = [`${id}`, mode.toString(8), `${uid}:${gid}`, `links ${nlink}`, `size ${size}`]
  for (const [name, value] of xattrs ?? []) all.push(`${name}=${value.toString('hex')}`)
  if (target) all.push(`-> ${target.toString()}`)
  if (isFile(node)) all.push(contentOf(staging, node))
  return all.join(', ')
}

/** Chunks by the first byte of their ids. */
function contentOf({ spool, bundles }: Staging, { id, size, place, extents, bare }: StagedNode): string {
  const bytes = Buffer.alloc(size)
  if (place) bundles.read(place, bytes, 0)
  else if (!bare) spool.read(id, bytes, 0, size)
  for (let index = 0; index < (extents?.count ?? 0); index++) {
    const { at, length, id: chunk } = extents!.get(index)
    bytes.fill(chunk[0]!, at, at + length)
  }
  return bytes.toString('latin1')
}
