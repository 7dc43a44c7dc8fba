/** When staged trees become archives (incoming.md §3): a pure function of what is staged and of the clock. */

export type TreeState =
  /** Something is being written, or was a moment ago. */
  | { readonly kind: 'writing' }
  | { readonly kind: 'committing' }
  /** In an archive; still shown for a while. */
  | { readonly kind: 'committed'; readonly archive: string; readonly atMs: number }
  | { readonly kind: 'failed'; readonly sentence: string; readonly retryAtMs: number; readonly attempts: number }

export interface StagedTree {
  /** Byte string; undefined for what lies directly in incoming/. */
  readonly name: string | undefined
  state: TreeState
  changedAtMs: number
  /** Handles that may write. */
  writers: number
  /** An empty folder waits for what will be copied into it. */
  empty: boolean
}

export interface PolicyOptions {
  readonly settleMs: number
  readonly lingerMs: number
}

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
    const quiet = tree.writers === 0 && nowMs - tree.changedAtMs >= options.settleMs
    if (state.kind === 'committed' && tree.writers === 0 && nowMs - state.atMs >= options.lingerMs) result.leave.push(tree)
    else if (tree.empty || !quiet) continue
    else if (state.kind === 'writing' || (state.kind === 'failed' && nowMs >= state.retryAtMs)) result.commit.push(tree)
  }
  return result
}

/** After a failure: the pauses double. */
export function failedState(before: TreeState, sentence: string, nowMs: number): TreeState {
  const attempts = before.kind === 'failed' ? before.attempts + 1 : 1
  return { kind: 'failed', sentence, attempts, retryAtMs: nowMs + Math.min(lastRetryMs, firstRetryMs * 2 ** (attempts - 1)) }
}

/** One line for user.borgfs.state. */
export function describe(tree: StagedTree, nowMs: number, options: PolicyOptions): string {
  switch (tree.state.kind) {
    case 'committing': return 'committing'
    case 'committed': return `committed ${Buffer.from(tree.state.archive, 'latin1').toString('utf8')}`
    case 'failed': return `failed: ${tree.state.sentence}`
  }
  return tree.writers > 0 || nowMs - tree.changedAtMs < Math.min(1000, options.settleMs) ? 'writing' : 'settling'
}
