/**
 * Chunking while files arrive, in the thread that answers the kernel: which staged files are handed to the cutter (cutter.ts) and when, and what
 * becomes of its answers. Small files go in batches when nobody has them open for writing any more; large ones while they grow, in ranges that
 * end where a chunk ends for certain.
 *
 * An answer counts only if what was cut is still what the file holds: every change of contents is told here first (`disturb`). A file that
 * is changed where it was cut already is not cut again: what was not changed stays cut, the rest is left to the commit.
 *
 * What a file had before it was cut goes only after the chunks and the journal that names them were made durable (Staging.afterSync).
 */
import type { FilePiece } from '../../engine/store/jobs.js'
import type { FileSeal } from '../../engine/store/sealed-file.js'
import type { EngineClient } from '../engine-client.js'
import { type CutReply, type CutRequest, cutStashed, type WireError } from '../engine-port.js'
import { maxBundledBytes, type BundlePlace } from './bundles.js'
import { Extents } from './extents.js'
import { isFile, type StagedNode } from './nodes.js'
import type { Staging } from './staging.js'

const batchCount = 256, batchBytes = 2 << 20
/** A growing file is cut when so much of it waits. */
const rangeBytes = 32 << 20
/** At a time: a commit waits for the answer. */
const maxRangeBytes = 48 << 20
const maxBatches = 3
/** Fewer than a batch wait so long for others: a batch costs the engine thread as much as a hundred files. */
const gatherMs = 500
/** After an answer that nothing can be cut now: another client has the lock, or the disk is full. */
const pauseMs = 3000
const rangeAlignment = 16

export interface CutInFlight {
  readonly from: number
  readonly to: number
  /** What was cut is not what the file holds any more. */
  broken: boolean
}

/** How far a file was cut. */
export interface CutState {
  /** It is chunks from its beginning to here, as far as nothing was changed since. */
  upTo: number
  inFlight: CutInFlight | undefined
  /** Not in the background any more. */
  left: boolean
}

export class Cuts {
  readonly #staging: Staging
  readonly #client: EngineClient
  readonly #isFrozen: (node: StagedNode) => boolean
  readonly #small = new Set<StagedNode>()
  #smallBytes = 0
  /** When the first of them came that were not sent. */
  #smallSinceMs = 0
  readonly #large = new Set<StagedNode>()
  #batches = 0
  #range = false
  #notBeforeMs = 0
  readonly #waiting: (() => void)[] = []

  /** `isFrozen`: its tree is just being committed. */
  constructor(staging: Staging, client: EngineClient, isFrozen: (node: StagedNode) => boolean) {
    this.#staging = staging
    this.#client = client
    this.#isFrozen = isFrozen
  }

  /** Answers are awaited. */
  get busy(): boolean {
    return this.#batches > 0 || this.#range
  }

  /** Comes before each change of a file's contents from `at` on. */
  disturb(node: StagedNode, at: number): void {
    const { cut } = node
    if (!cut) return
    if (cut.inFlight && at < cut.inFlight.to) cut.inFlight.broken = true
    // The last chunk of a file that was whole ends where the file ended.
    if (at < cut.upTo || (node.bare && at <= cut.upTo) || cut.inFlight?.broken) cut.left = true
  }

  /** A file has no contents any more: whatever comes is new. */
  emptied(node: StagedNode): void {
    node.cut = undefined
    node.stashed = false
  }

  /** A file has grown. */
  grew(node: StagedNode): void {
    if (node.size - (node.cut?.upTo ?? 0) >= rangeBytes && this.#mayCutRange(node)) this.#queueRange(node)
  }

  /** Nobody has it open for writing any more. */
  closed(node: StagedNode): void {
    if (!isFile(node) || node.size === 0 || node.nlink === 0) return
    if (node.place) {
      if (this.#small.has(node) || node.cut) return
      this.#addSmall(node)
      this.#sendSmall()
    } else if (node.size > maxBundledBytes && this.#mayCutRange(node)) this.#queueRange(node)
  }

  tick(nowMs: number): void {
    this.#sendSmall(nowMs - this.#smallSinceMs >= gatherMs)
    this.#sendRange()
  }

  /** Runs `work` when no answer is awaited; nothing is asked before that. */
  whenIdle(work: () => void): void {
    if (this.busy) this.#waiting.push(work)
    else work()
  }

  #mayCutRange(node: StagedNode): boolean {
    const { cut, place, bare, extents, size } = node
    if (place || bare || cut?.left || cut?.inFlight) return false
    // Clones among what was written are left to the commit.
    return (extents === undefined || cut !== undefined) && (cut?.upTo ?? 0) < size
  }

  #queueRange(node: StagedNode): void {
    this.#large.add(node)
    this.#sendRange()
  }

  get #mayAsk(): boolean {
    return this.#waiting.length === 0 && performance.now() >= this.#notBeforeMs
  }

  #addSmall(node: StagedNode): void {
    if (this.#small.size === 0) this.#smallSinceMs = performance.now()
    this.#small.add(node)
    this.#smallBytes += node.size
  }

  /** Whole batches; `rest`: also what is less. */
  #sendSmall(rest = false): void {
    while (this.#small.size > 0 && (rest || this.#small.size >= batchCount || this.#smallBytes >= batchBytes) && this.#batches < maxBatches && this.#mayAsk) {
      const batch: { node: StagedNode; place: BundlePlace; inFlight: CutInFlight }[] = []
      const files: FilePiece[] = []
      let bytes = 0
      for (const node of this.#small) {
        if (batch.length === batchCount || bytes >= batchBytes) break
        this.#small.delete(node)
        const { place, size } = node
        this.#smallBytes -= size
        if (!place || node.writers > 0 || size === 0 || this.#staging.nodes.get(node.id) !== node || this.#isFrozen(node)) continue
        const inFlight = { from: 0, to: size, broken: false }
        node.cut = { upTo: 0, inFlight, left: false }
        batch.push({ node, place, inFlight })
        files.push({ path: Buffer.from(this.#staging.bundles.path(place.bundle)), size, ino: 0n, position: place.start, ...this.#seal(this.#staging.bundles.cipherNumber(place.bundle), size) })
        bytes += size
      }
      // Some may have another size by now.
      if (this.#small.size === 0) this.#smallBytes = 0
      this.#smallSinceMs = performance.now()
      if (batch.length === 0) return
      this.#batches++
      this.#client.request({ kind: 'cut', files } satisfies CutRequest, (error, reply) => {
        this.#batches--
        this.#answered(error, () => {
          if (error) {
            // They wait as they are.
            for (const { node, inFlight } of batch) {
              if (node.cut?.inFlight !== inFlight) continue
              node.cut = undefined
              if (node.place && node.writers === 0) this.#addSmall(node)
            }
          } else this.#smallDone(batch, reply)
        })
        this.#sendSmall()
      })
    }
  }

  #seal(file: number, size: number): { seal: FileSeal } | undefined {
    const { keys } = this.#staging
    return keys && { seal: { key: keys.contents, file, size } }
  }

  #smallDone(batch: readonly { node: StagedNode; place: BundlePlace; inFlight: CutInFlight }[], { rows, states, stashBytes }: CutReply): void {
    const extents = new Extents(rows)
    this.#staging.stashBytes = stashBytes
    let row = 0
    this.#staging.journal.together(() => {
      for (const [index, { node, place, inFlight }] of batch.entries()) {
        const state = states[index]!
        const extent = state === 0 ? undefined : extents.get(row++)
        const { cut } = node
        if (cut?.inFlight !== inFlight) continue
        cut.inFlight = undefined
        const { id, size, csize } = extent ?? {}
        if (!id || inFlight.broken || node.place !== place || node.size !== size || this.#staging.nodes.get(node.id) !== node) {
          cut.left = true
          continue
        }
        const whole = new Extents()
        whole.push(0, size!, 0, id, size!, csize!)
        this.#note(node, whole, state === cutStashed)
        cut.upTo = size!
        node.bare = true
        node.place = undefined
        this.#staging.releasePlace(place)
      }
    })
  }

  #sendRange(): void {
    while (this.#large.size > 0 && !this.#range && this.#mayAsk) {
      const [node] = this.#large
      this.#large.delete(node!)
      this.#askRange(node!)
    }
  }

  #askRange(node: StagedNode): void {
    if (this.#staging.nodes.get(node.id) !== node || !this.#mayCutRange(node) || this.#isFrozen(node)) return
    const from = node.cut?.upTo ?? 0
    const end = Math.min(node.size, from + maxRangeBytes)
    const final = end === node.size && node.writers === 0
    const to = final ? end : end - (end % rangeAlignment)
    if (!final && to - from < rangeBytes) return
    // Chunks end anywhere; blocks are encrypted whole.
    const { spool } = this.#staging
    const inFlight = { from, to, broken: false }
    node.cut ??= { upTo: 0, inFlight, left: false }
    node.cut.inFlight = inFlight
    this.#range = true
    const seal = spool.isSealed(node.id) ? this.#seal(node.id, to)?.seal : undefined
    this.#client.request({ kind: 'cut', range: { path: spool.path(node.id), seal, from, to, final } } satisfies CutRequest, (error, reply) => {
      this.#range = false
      this.#answered(error, () => {
        const { cut } = node
        if (cut?.inFlight !== inFlight) return
        cut.inFlight = undefined
        if (error) cut.left ||= error.msgid !== 'LockTimeout' && error.code !== 'ENOSPC' && error.code !== 'EDQUOT'
        else this.#rangeDone(node, cut, inFlight, reply, final)
        if (cut.left || this.#staging.nodes.get(node.id) !== node) return
        if (node.writers === 0) this.closed(node)
        else this.grew(node)
      })
      this.#sendRange()
    })
  }

  #rangeDone(node: StagedNode, cut: CutState, { from, broken }: CutInFlight, { rows, states, stashBytes }: CutReply, final: boolean): void {
    this.#staging.stashBytes = stashBytes
    if (broken || this.#staging.nodes.get(node.id) !== node || node.place || node.bare) {
      cut.left = true
      return
    }
    const extents = new Extents(rows)
    if (extents.count === 0 || extents.end > node.size) {
      cut.left = true
      return
    }
    this.#note(node, extents, states.includes(cutStashed))
    cut.upTo = extents.end
    // Appended to meanwhile: its last chunk does not end where it would.
    if (final && node.size > cut.upTo) cut.left = true
    this.#staging.afterSync(() => this.#release(node, from, extents.end))
  }

  /** A file's bytes are chunks from now on. */
  #note(node: StagedNode, extents: Extents, stashed: boolean): void {
    const before = node.extents?.bytes ?? 0
    ;(node.extents ??= new Extents()).put(extents)
    if (stashed) {
      node.stashed = true
      this.#staging.journal.stashed(node.id, extents)
    } else this.#staging.journal.cloned(node.id, extents)
    // Only what lies in spool files counts as staged, and the stash as a whole.
    this.#staging.grew(before - node.extents.bytes)
  }

  /** The spool file beneath chunks is not needed any more, as far as nothing was written to it since. */
  #release(node: StagedNode, from: number, to: number): void {
    if (this.#staging.nodes.get(node.id) !== node || node.bare || !node.extents) return
    if (node.extents.coveredFrom(0) >= node.size) {
      node.bare = true
      this.#staging.spool.remove(node.id)
    } else if (node.extents.coveredFrom(from) >= to) this.#staging.spool.punch(node.id, from, to)
  }

  #answered(error: WireError | undefined, work: () => void): void {
    if (error) this.#notBeforeMs = performance.now() + pauseMs
    work()
    if (!this.busy) for (const wake of this.#waiting.splice(0)) wake()
  }
}
