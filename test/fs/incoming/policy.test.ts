import test from 'ava'
import { describe, due, failedState, type StagedTree, type TreeState } from '../../../src/fs/incoming/policy.js'

const options = { settleMs: 10_000, lingerMs: 60_000 }

function tree(state: TreeState, changes: Partial<StagedTree> = {}): StagedTree {
  return { place: 'incoming', name: 'laptop', state, frozen: false, made: undefined, problem: undefined, changedAtMs: 0, version: 0, newBytes: undefined, writers: 0, empty: false, ...changes }
}

const table: readonly (readonly [title: string, tree: StagedTree, nowMs: number, commit: boolean, leave: boolean])[] = [
  ['a tree that changed a moment ago waits', tree({ kind: 'writing' }), 9_999, false, false],
  ['a quiet tree is committed', tree({ kind: 'writing' }), 10_000, true, false],
  ['a quiet tree with an open writer waits', tree({ kind: 'writing' }, { writers: 1 }), 99_000, false, false],
  ['an empty tree waits for its files', tree({ kind: 'writing' }, { empty: true }), 99_000, false, false],
  ['a tree being committed is left alone', tree({ kind: 'committing', percent: 7 }, { frozen: true }), 99_000, false, false],
  ['a tree whose lock is being waited for is left alone', tree({ kind: 'waiting', holder: undefined, retryAtMs: 0 }, { frozen: true }), 99_000, false, false],
  ['a tree that got no lock waits for its next try', tree({ kind: 'waiting', holder: 'h@1', retryAtMs: 20_000 }), 19_999, false, false],
  ['a tree that got no lock is tried again', tree({ kind: 'waiting', holder: 'h@1', retryAtMs: 20_000 }), 20_000, true, false],
  ['a failed tree waits for its next try', tree({ kind: 'failed', sentence: '', retryAtMs: 20_000, attempts: 1, noRoom: false }), 19_999, false, false],
  ['a failed tree is tried again', tree({ kind: 'failed', sentence: '', retryAtMs: 20_000, attempts: 1, noRoom: false }), 20_000, true, false],
  ['a committed tree lingers', tree({ kind: 'committed', archive: 'a', atMs: 5_000 }), 64_999, false, false],
  ['a committed tree leaves after a while', tree({ kind: 'committed', archive: 'a', atMs: 5_000 }), 65_000, false, true],
  ['a committed tree that is open for writing stays', tree({ kind: 'committed', archive: 'a', atMs: 5_000 }, { writers: 1 }), 99_000, false, false],
]

for (const [title, staged, nowMs, commit, leave] of table) {
  test(title, t => {
    const found = due([staged], nowMs, options)
    t.deepEqual([found.commit.length, found.leave.length], [commit ? 1 : 0, leave ? 1 : 0])
  })
}

test('pauses after failures double up to five minutes', t => {
  let state: TreeState = { kind: 'writing' }
  const pauses = []
  for (let attempt = 0; attempt < 9; attempt++) {
    state = failedState(state, 'no room', 1000)
    pauses.push(state.kind === 'failed' ? state.retryAtMs - 1000 : -1)
  }
  t.deepEqual(pauses, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000])
})

test('the state is told in a few words', t => {
  t.is(describe(tree({ kind: 'writing' }, { writers: 1 }), 50_000, options), 'writing')
  t.is(describe(tree({ kind: 'writing' }), 5_000, options), 'settling')
  t.is(describe(tree({ kind: 'failed', sentence: 'the disk is full', retryAtMs: 0, attempts: 1, noRoom: true }), 0, options), 'failed: the disk is full')
  t.is(describe(tree({ kind: 'waiting', holder: 'attic@17', retryAtMs: 0 }), 0, options), 'waiting for lock of attic@17')
  t.is(describe(tree({ kind: 'committing', percent: 42 }), 0, options), 'committing 42 %')
  t.is(describe(tree({ kind: 'committed', archive: 'laptop-1', atMs: 0 }), 0, options), 'committed laptop-1')
})
