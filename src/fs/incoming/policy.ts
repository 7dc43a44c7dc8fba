/** When staged trees become archives (incoming.md §3): a pure function of what is staged and of the clock. */

export type TreeState =
  /** Something is being written, or was a moment ago. */
  | { readonly kind: 'writing' }
  /** Another client has the repository; `holder` is HOST@PID where that is known. Frozen while the lock is being tried for. */
  | { readonly kind: 'waiting'; readonly holder: string | undefined; readonly retryAtMs: number }
  | { readonly kind: 'committing'; readonly percent: number }
  /** In an archive; still shown for a while. */
  | { readonly kind: 'committed'; readonly archive: string; readonly atMs: number }
  | { readonly kind: 'failed'; readonly sentence: string; readonly retryAtMs: number; readonly attempts: number; readonly noRoom: boolean }

/** `incoming`: a drop box. `live`: series of archives; a tree stays, and each of its commits is a further archive. */
export type Place = 'incoming' | 'live'

/** The archive that was made of a tree which has changed since: the next commit takes its place. */
export interface MadeArchive {
  /** Byte string. */
  readonly name: string
  /** 64 hex digits. */
  readonly id: string
  /** Name of the tree at that time: under another one, the archive gets another name too. */
  readonly tree: string | undefined
}

export interface StagedTree {
  readonly place: Place
  /** Byte string; undefined for what lies directly in incoming/. */
  readonly name: string | undefined
  state: TreeState
  /** Being read by a commit: whoever would change it waits. */
  frozen: boolean
  /** Made of it, by this process or one before; kept as long as the tree is shown. */
  made: MadeArchive | undefined
  /** Why the last commit that somebody asked for was refused. */
  problem: string | undefined
  changedAtMs: number
  /** Counts changes, for whoever remembers sums. */
  version: number
  /** Bytes that the last commit added to the repository. */
  newBytes: number | undefined
  /** Handles that may write. */
  writers: number
  /** An empty folder waits for what will be copied into it. */
  empty: boolean
}

export interface PolicyOptions {
  readonly settleMs: number
  readonly lingerMs: number
}

/** Nothing was done yet when the lock was not to be had, so a try costs little. */
const lockRetryMs = 2_000
const firstRetryMs = 5_000
const lastRetryMs = 300_000

export interface Due {
  readonly commit: StagedTree[]
  /** Committed and shown long enough. */
  readonly leave: StagedTree[]
}

export function due(trees: Iterable<StagedTree>, nowMs: number, options: PolicyOptions): Due {
  const result: Due = { commit: [], leave: [] }
  for (const tree of trees) {
    const { state } = tree
    if (tree.frozen) continue
    const quiet = tree.writers === 0 && nowMs - tree.changedAtMs >= options.settleMs
    if (state.kind === 'committed' && tree.writers === 0 && nowMs - state.atMs >= options.lingerMs) result.leave.push(tree)
    else if (tree.empty || !quiet) continue
    else if (state.kind === 'writing' || ((state.kind === 'failed' || state.kind === 'waiting') && nowMs >= state.retryAtMs)) result.commit.push(tree)
  }
  return result
}

/** After a failure: the pauses double. `noRoom`: whoever notices that space was made need not wait for the pause to end. */
export function failedState(before: TreeState, sentence: string, nowMs: number, noRoom = false): TreeState {
  const attempts = before.kind === 'failed' ? before.attempts + 1 : 1
  return { kind: 'failed', sentence, attempts, retryAtMs: nowMs + Math.min(lastRetryMs, firstRetryMs * 2 ** (attempts - 1)), noRoom }
}

/** After a vain try for the lock. */
export function waitingState(holder: string | undefined, nowMs: number): TreeState {
  return { kind: 'waiting', holder, retryAtMs: nowMs + lockRetryMs }
}

/** One line for user.borgfs.state. */
export function describe(tree: StagedTree, nowMs: number, options: PolicyOptions): string {
  switch (tree.state.kind) {
    case 'waiting': return tree.state.holder === undefined ? 'waiting for lock' : `waiting for lock of ${tree.state.holder}`
    case 'committing': return `committing ${tree.state.percent} %`
    case 'committed': return `committed ${Buffer.from(tree.state.archive, 'latin1').toString('utf8')}`
    case 'failed': return `failed: ${tree.state.sentence}`
  }
  return tree.writers > 0 || nowMs - tree.changedAtMs < Math.min(1000, options.settleMs) ? 'writing' : 'settling'
}
