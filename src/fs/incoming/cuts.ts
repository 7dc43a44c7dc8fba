/**
 * Chunking while files arrive, in the thread that answers the kernel: which staged files are handed to the cutter (cutter.ts) and when, and what
 * becomes of its answers. Small files go in batches when nobody has them open for writing any more; large ones while they grow, in ranges that
 * end where a chunk ends for certain.
 *
 * An answer counts only if what was cut is still what the file holds: every change of contents is told here first (`disturb`). A file that
 * is changed where it was cut already is not cut again: what was not changed stays cut, the rest is left to the commit.
 *
 * What a file had before it was cut goes only after the chunks and the journal that names them were made durable (Staging.afterSync). What
 * nobody was promised to find after a power failure gives its room back as soon as the journal has heard of the chunks, which is enough for
 * the death of this process: so the pages that a large file is written to are the same few over and over, and do not go to the disk.
 *
 * Of a large file two ranges are under way at a time: where the second begins is known when the first was cut, long before its chunks are
 * sealed. Whoever writes faster than that is held up (`holdUp`).
 */
import { saysNoRoom } from '../../engine/errors.js'
import type { FilePiece } from '../../engine/store/jobs.js'
import type { FileSeal } from '../../engine/store/sealed-file.js'
import type { EngineClient } from '../engine-client.js'
import { type CutReply, type CutRequest, cutStashed, type WireError } from '../engine-port.js'
import { maxBundledBytes, type BundlePlace } from './bundles.js'
import { hostErrno } from './contents.js'
import { Extents } from './extents.js'
import { cutRoomBytes } from './journal.js'
import { isFile, type StagedNode } from './nodes.js'
import type { Staging } from './staging.js'

const batchCount = 256, batchBytes = 2 << 20
/** A growing file is cut when so much of it waits. */
const rangeBytes = 16 << 20
/** At a time: a commit waits for the answer. */
const maxRangeBytes = 32 << 20
const maxBatches = 3, maxRanges = 2
/** Whoever is so far ahead waits. */
const maxBacklogBytes = 3 * rangeBytes
/** But not for long where no answer comes: something else may have the repository. */
const maxHoldMs = 2000
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

interface RangeInFlight extends CutInFlight {
  /** Up to the end of the file. */
  readonly final: boolean
  /** Where its last chunk ends; undefined as long as it is being cut. */
  end: number | undefined
  answer: { readonly error: WireError | undefined; readonly reply: CutReply } | undefined
}

/** How far a file was cut. */
export interface CutState {
  /** It is chunks from its beginning to here, as far as nothing was changed since. */
  upTo: number
  /** A small file. */
  inFlight: CutInFlight | undefined
  /** Of a large one, each beginning where the one before ends, and noted in this order. */
  ranges: RangeInFlight[]
  /** Not in the background any more. */
  left: boolean
}

interface WaitingForIdle {
  isWanted(node: StagedNode): boolean
  work(): void
}

interface Held {
  readonly node: StagedNode
  readonly sinceMs: number
  goOn(): void
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
  /** Files that have grown since somebody opened them, or of which ranges are under way. */
  readonly #growing = new Set<StagedNode>()
  #batches = 0
  #ranges = 0
  #notBeforeMs = 0
  readonly #waiting: WaitingForIdle[] = []
  #held: Held[] = []
  /** Answers come. */
  #isAnswered = true
  /** Files with lower ids may hold what was made durable, or what is just becoming so: these up to an offset, of the others all. */
  #promisedBelow: number
  readonly #promised = new WeakMap<StagedNode, number>()

  /** `isFrozen`: its tree is just being committed. */
  constructor(staging: Staging, client: EngineClient, isFrozen: (node: StagedNode) => boolean) {
    this.#staging = staging
    this.#client = client
    this.#isFrozen = isFrozen
    this.#promisedBelow = staging.nodes.nextId
  }

  /** Answers are awaited. */
  get busy(): boolean {
    return this.#batches > 0 || this.#ranges > 0
  }

  /** Comes before each change of a file's contents from `at` on. */
  disturb(node: StagedNode, at: number): void {
    const { cut } = node
    if (!cut) return
    if (cut.inFlight && at < cut.inFlight.to) cut.inFlight.broken = true
    for (const range of cut.ranges) if (at < range.to) range.broken = true
    // The last chunk of a file that was whole ends where the file ended.
    if (at < cut.upTo || (node.bare && at <= cut.upTo) || cut.inFlight?.broken || cut.ranges.at(-1)?.broken) cut.left = true
  }

  /** The same before chunks are laid over it from `at` on. What lies beneath them is nothing to be cut, and behind them no chunk need begin. */
  cloning(node: StagedNode, at: number): void {
    this.disturb(node, at)
    if (node.cut) node.cut.left = true
  }

  /** A file has no contents any more: whatever comes is new. */
  emptied(node: StagedNode): void {
    node.cut = undefined
    node.stashed = false
  }

  /** A file has grown. */
  grew(node: StagedNode): void {
    this.#growing.add(node)
    if (this.#mayCutRange(node) && node.size - nextFrom(node.cut)! >= rangeBytes) this.#queueRange(node)
  }

  /**
   * Whether whoever writes a file is to be held up, as more of it waits here than is to be kept. Only as long as answers come: it must not
   * depend on anybody else.
   */
  isAhead({ cut, size }: StagedNode): boolean {
    return cut !== undefined && this.#isAnswered && cut.ranges.length > 0 && !cut.left && size - cut.upTo >= maxBacklogBytes
  }

  /** `goOn` is called soon. */
  holdUp(node: StagedNode, goOn: () => void): void {
    this.#held.push({ node, goOn, sinceMs: performance.now() })
  }

  #letGo(isOver: (held: Held) => boolean): void {
    const over = this.#held.filter(isOver)
    if (over.length === 0) return
    this.#held = this.#held.filter(held => !over.includes(held))
    for (const { goOn } of over) goOn()
  }

  /** What is in the files, or in one of them, is being made durable. */
  promise(only?: StagedNode): void {
    if (only) {
      this.#promised.set(only, Math.max(this.#promisedOf(only), only.size))
      return
    }
    this.#promisedBelow = this.#staging.nodes.nextId
    for (const node of this.#growing) this.#promised.set(node, node.size)
  }

  /** Bytes from the file's beginning. */
  #promisedOf(node: StagedNode): number {
    return this.#promised.get(node) ?? (node.id < this.#promisedBelow ? Infinity : 0)
  }

  /** Nobody has it open for writing any more. */
  closed(node: StagedNode): void {
    if (!node.cut || node.cut.ranges.length === 0) this.#growing.delete(node)
    if (!isFile(node) || node.size === 0 || node.nlink === 0) return
    if (node.place) {
      if (this.#small.has(node) || node.cut) return
      this.#addSmall(node)
      this.#sendSmall()
    } else if (node.size > maxBundledBytes && this.#mayCutRange(node)) this.#queueRange(node)
  }

  tick(nowMs: number): void {
    this.#sendSmall(nowMs - this.#smallSinceMs >= gatherMs)
    this.#sendRanges()
    const longAgoMs = performance.now() - maxHoldMs
    if (!this.#held.some(({ sinceMs }) => sinceMs < longAgoMs)) return
    this.#isAnswered = false
    this.#letGo(() => true)
  }

  /** Runs `work` when no answer is awaited; nothing is asked before that, but for what is left of large files that are wanted and were closed. */
  whenIdle(isWanted: (node: StagedNode) => boolean, work: () => void): void {
    this.#waiting.push({ isWanted, work })
    this.#sendRanges()
    this.#wake()
  }

  #wake(): void {
    if (!this.busy) for (const { work } of this.#waiting.splice(0)) work()
  }

  #mayCutRange(node: StagedNode): boolean {
    const { cut, place, bare, extents, size } = node
    if (place || bare || cut?.left || cut?.inFlight) return false
    const from = nextFrom(cut)
    // Clones among what was written are left to the commit.
    return (extents === undefined || cut !== undefined) && from !== undefined && from < size
  }

  #queueRange(node: StagedNode): void {
    this.#large.add(node)
    this.#sendRanges()
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
      // The byte workers read them.
      if (hostErrno(() => this.#staging.bundles.catchUp())) return
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
        node.cut = { upTo: 0, inFlight, ranges: [], left: false }
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
    if (!this.#mayNote(rows)) {
      // On a full disk they wait for the commit as they are.
      for (const { node, inFlight } of batch) {
        if (node.cut?.inFlight === inFlight) Object.assign(node.cut, { inFlight: undefined, left: true })
      }
      return
    }
    const cut: { node: StagedNode; place: BundlePlace; extents: Extents; stashed: boolean }[] = []
    let row = 0
    for (const [index, { node, place, inFlight }] of batch.entries()) {
      const state = states[index]!
      const extent = state === 0 ? undefined : extents.get(row++)
      if (node.cut?.inFlight !== inFlight) continue
      // Until it is noted.
      Object.assign(node.cut, { inFlight: undefined, left: true })
      const { id, size, csize } = extent ?? {}
      if (!id || inFlight.broken || node.place !== place || node.size !== size || this.#staging.nodes.get(node.id) !== node) continue
      const whole = new Extents()
      whole.push(0, size!, 0, id, size!, csize!)
      cut.push({ node, place, extents: whole, stashed: state === cutStashed })
    }
    const failed = hostErrno(() => this.#staging.journal.together(() => {
      for (const { node, extents, stashed } of cut) this.#tell(node, extents, stashed)
    }))
    // They wait for the commit then, as they are.
    if (failed) return
    for (const { node, place, extents, stashed } of cut) {
      this.#lay(node, extents, stashed)
      Object.assign(node.cut!, { upTo: extents.end, left: false })
      node.bare = true
      node.place = undefined
      this.#staging.releasePlace(place)
    }
  }

  #sendRanges(): void {
    for (const node of this.#large) {
      if (this.#ranges >= maxRanges || performance.now() < this.#notBeforeMs) return
      const isLast = this.#waiting.length > 0
      if (isLast && !(node.writers === 0 && this.#waiting.some(({ isWanted }) => isWanted(node)))) continue
      this.#large.delete(node)
      // What is about to be committed is frozen already.
      if (isLast || !this.#isFrozen(node)) this.#askRange(node)
    }
  }

  #askRange(node: StagedNode): void {
    if (this.#staging.nodes.get(node.id) !== node || !this.#mayCutRange(node)) return
    const from = nextFrom(node.cut)!
    const end = Math.min(node.size, from + maxRangeBytes)
    const final = end === node.size && node.writers === 0
    const to = final ? end : end - (end % rangeAlignment)
    if (!final && to - from < rangeBytes) return
    // Chunks end anywhere; blocks are encrypted whole.
    const { spool } = this.#staging
    const range: RangeInFlight = { from, to, final, broken: false, end: undefined, answer: undefined }
    node.cut ??= { upTo: 0, inFlight: undefined, ranges: [], left: false }
    node.cut.ranges.push(range)
    this.#growing.add(node)
    this.#ranges++
    const seal = spool.isSealed(node.id) ? this.#seal(node.id, to)?.seal : undefined
    this.#client.request({ kind: 'cut', range: { path: spool.path(node.id), seal, from, to, final } } satisfies CutRequest, (error, reply) => {
      this.#ranges--
      this.#answered(error, () => {
        range.answer = { error, reply }
        this.#settleRanges(node)
      })
    }, progress => {
      if (progress.kind !== 'cut') return
      range.end = progress.end
      this.#goOn(node)
    })
  }

  /** Asks for what follows in a file, if that may be. */
  #goOn(node: StagedNode): void {
    if (this.#staging.nodes.get(node.id) !== node) this.#growing.delete(node)
    else if (node.writers === 0) this.closed(node)
    else this.grew(node)
    this.#sendRanges()
  }

  /** Notes those that were answered, in their order: what follows one that failed begins nowhere. */
  #settleRanges(node: StagedNode): void {
    const { cut } = node
    for (let range = cut?.ranges[0]; cut && range?.answer; range = cut.ranges[0]) {
      const { error, reply } = range.answer
      cut.ranges.shift()
      if (error) cut.left ||= error.msgid !== 'LockTimeout' && !saysNoRoom(error.code)
      else this.#rangeDone(node, cut, range, reply)
      if (error || cut.left) cut.ranges = []
    }
    this.#goOn(node)
    this.#letGo(({ node: held }) => !this.isAhead(held))
  }

  #rangeDone(node: StagedNode, cut: CutState, { from, broken, final }: RangeInFlight, { rows, states, stashBytes }: CutReply): void {
    this.#staging.stashBytes = stashBytes
    if (broken || this.#staging.nodes.get(node.id) !== node || node.place || node.bare || !this.#mayNote(rows)) {
      cut.left = true
      return
    }
    const extents = new Extents(rows)
    if (extents.count === 0 || extents.end > node.size) {
      cut.left = true
      return
    }
    const stashed = states.includes(cutStashed)
    if (hostErrno(() => this.#staging.journal.whole(() => this.#tell(node, extents, stashed)))) {
      cut.left = true
      return
    }
    this.#lay(node, extents, stashed)
    cut.upTo = extents.end
    // Appended to meanwhile: its last chunk does not end where it would.
    if (final && node.size > cut.upTo) cut.left = true
    const unpromised = Math.max(from, this.#promisedOf(node))
    if (unpromised < extents.end) hostErrno(() => this.#staging.spool.punch(node.id, unpromised, extents.end))
    const { cutCount } = node
    const holdsWhole = this.#staging.holdsWhole(node)
    this.#staging.afterSync(() => {
      if (holdsWhole()) this.#staging.removeSpool(node)
      else if (node.cutCount === cutCount) this.#release(node, from, extents.end)
    }, node)
  }

  /** The journal has room for an answer: what it did not hear of must not be taken for done. */
  #mayNote(rows: Uint8Array): boolean {
    return hostErrno(() => this.#staging.journal.ready(cutRoomBytes + 2 * rows.length)) === undefined
  }

  /** The journal hears that a file's bytes are chunks; then they are. */
  #tell({ id }: StagedNode, extents: Extents, stashed: boolean): void {
    if (stashed) this.#staging.journal.stashed(id, extents)
    else this.#staging.journal.cloned(id, extents)
  }

  #lay(node: StagedNode, extents: Extents, stashed: boolean): void {
    // Only what lies in spool files counts as staged, and the stash as a whole.
    this.#staging.counting(node, () => (node.extents ??= new Extents()).put(extents))
    node.stashed ||= stashed
  }

  /** What of the spool file lies beneath chunks is not needed any more. */
  #release(node: StagedNode, from: number, to: number): void {
    if (this.#staging.nodes.get(node.id) !== node || node.bare || !node.extents) return
    if (node.extents.coveredFrom(from) >= to) this.#staging.spool.punch(node.id, from, to)
  }

  #answered(error: WireError | undefined, work: () => void): void {
    if (error) this.#notBeforeMs = performance.now() + pauseMs
    this.#isAnswered = true
    work()
    this.#wake()
  }
}

/** Where the next range of a large file begins; undefined if that is not known, or there is none. */
function nextFrom(cut: CutState | undefined): number | undefined {
  const last = cut?.ranges.at(-1)
  if (last) return last.final ? undefined : last.end
  return cut?.upTo ?? 0
}
