/**
 * The staging folder of one repository: nodes, their journal and their spooled contents, recovered at start. In the thread that
 * answers the kernel; nothing here waits for a disk to be durable.
 */
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import { files } from '../../engine/platform/files.js'
import { dropTree, Journal, replay } from './journal.js'
import { isFile, type NodeFacts, Nodes, rootId, type StagedNode } from './nodes.js'
import { Spool } from './spool.js'

export interface StagingOptions {
  readonly folder: string
  /** Bytes that may be staged; undefined: as the disk allows. */
  readonly maxBytes: number | undefined
  readonly rootFacts: NodeFacts
  /** A tree whose archive was committed just before an earlier process ended: a name, or null for loose files. */
  readonly alreadyCommitted?: string | null | undefined
}

export class Staging {
  readonly folder: string
  readonly nodes: Nodes
  readonly journal: Journal
  readonly spool: Spool
  /** Journal records that could not be used. */
  readonly lostRecords: number
  readonly #maxBytes: number
  #bytes = 0

  constructor(options: StagingOptions) {
    this.folder = options.folder
    files.ensureDirectory(options.folder, 0o700)
    this.#maxBytes = options.maxBytes ?? Infinity
    this.nodes = new Nodes(options.rootFacts)
    this.spool = new Spool(options.folder)
    const path = join(options.folder, 'journal')
    this.lostRecords = replay(path, this.nodes)
    this.#adoptSizes()
    this.journal = Journal.open(path)
    if (options.alreadyCommitted !== undefined) this.drop(options.alreadyCommitted ?? undefined)
    this.journal.rewrite(this.nodes)
    this.spool.removeOrphans(id => isFile(this.nodes.get(id) ?? nobody))
  }

  /** The spool knows best how much was written, and when, if the process ended before the journal heard of it. */
  #adoptSizes(): void {
    for (const node of this.nodes.all()) {
      if (!isFile(node)) continue
      node.size = this.spool.stat(node.id).size
      this.#bytes += node.size
    }
  }

  /** Takes a committed tree out: its names, its spool files. Returns the names that left incoming/ itself. */
  drop(name: string | undefined): string[] {
    const root = this.nodes.get(rootId)!
    const names = name !== undefined ? [name] : [...root.children!].filter(([, id]) => !this.nodes.get(id)?.children).map(([loose]) => loose)
    for (const gone of names) {
      if (!this.nodes.child(root, gone)) continue
      this.journal.dropped(rootId, gone)
      for (const id of dropTree(this.nodes, root, gone)) this.spool.remove(id)
    }
    return names
  }

  /** Room for `more` further bytes. */
  mayGrow(more: number): boolean {
    return this.#bytes + more <= this.#maxBytes
  }

  grew(bytes: number): void {
    this.#bytes += bytes
  }

  /** A node without names and handles. */
  forget(node: StagedNode): void {
    this.nodes.forget(node.id)
    if (isFile(node)) {
      this.#bytes -= node.size
      this.spool.remove(node.id)
    }
  }

  statfs(): { blocks: number; bfree: number; bavail: number; files: number; ffree: number; bsize: number } {
    const { blocks, bfree, bavail, files, ffree, bsize } = statfsSync(this.folder)
    const left = Math.max(0, Math.floor((this.#maxBytes - this.#bytes) / bsize))
    return { blocks, bfree: Math.min(bfree, left), bavail: Math.min(bavail, left), files, ffree, bsize }
  }

  close(): void {
    this.spool.closeAll()
    this.journal.close()
  }
}

const nobody = { mode: 0 } as StagedNode
