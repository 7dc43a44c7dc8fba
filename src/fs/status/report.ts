/** What is going on, as text for people and as JSON for programs (incoming.md §5). */
import { bytesOf, shownText } from '../../engine/text.js'
import type { ChunkCache } from '../chunk-cache.js'
import { describe, type StagedTree } from '../incoming/policy.js'
import { type MadeCommit, shownPath, type Trees } from '../incoming/trees.js'

export interface ReportFacts {
  /** As the person named it. */
  readonly repository: string
}

/** What the drive holds in memory, for whoever suspects that it grows. */
export interface Counts {
  /** Archives that are shown, and such as are gone but not forgotten by the kernel. */
  readonly archives: number
  /** Files and directories in incoming/ and live/. */
  readonly staged: number
  readonly open_files: number
}

/** Sums over a tree cost a walk: they are kept while it does not change, and this long while it does. */
const keepSumsMs = 2000

interface Sums {
  readonly version: number
  readonly atMs: number
  readonly files: number
  readonly bytes: number
}

export class Report {
  readonly #facts: ReportFacts
  readonly #trees: readonly Trees[]
  readonly #cache: () => Pick<ChunkCache, 'size' | 'maxBytes'>
  readonly #counts: () => Counts
  readonly #sums = new WeakMap<StagedTree, Sums>()

  /** `trees`: none where nothing can be written. */
  constructor(facts: ReportFacts, trees: readonly Trees[], cache: () => Pick<ChunkCache, 'size' | 'maxBytes'>, counts: () => Counts) {
    this.#counts = counts
    this.#facts = facts
    this.#trees = trees
    this.#cache = cache
  }

  json(): Buffer {
    const { size, maxBytes } = this.#cache()
    return Buffer.from(`${JSON.stringify({
      repository: this.#facts.repository, pid: process.pid, read_only: this.#trees.length === 0,
      trees: this.#shown().map(([trees, tree]) => {
        const { files, bytes } = this.#sumsOf(trees, tree)
        return {
          path: shownPath(tree), state: tree.state.kind === 'writing' ? textOf(trees, tree) : tree.state.kind, text: textOf(trees, tree), files, bytes,
          new_bytes: tree.newBytes ?? null, archive: tree.made ? nameText(tree.made.name) : null, problem: tree.problem ?? null,
        }
      }),
      cache: { bytes: size, max_bytes: maxBytes },
      counts: this.#counts(),
      commits: this.#commits().map(commit => ({
        archive: nameText(commit.archive), time: new Date(commit.atMs).toISOString(), nfiles: commit.fileCount, original_size: commit.originalSize,
        deduplicated_size: commit.newBytes,
      })),
    }, undefined, 2)}\n`)
  }

  text(): Buffer {
    const lines = [`Repository: ${this.#facts.repository}`]
    if (this.#trees.length === 0) lines.push('Nothing can be copied in: the drive is read-only.')
    else {
      const shown = this.#shown()
      lines.push(shown.length === 0 ? 'Nothing is staged.' : 'Staged:')
      for (const [trees, tree] of shown) {
        const { files, bytes } = this.#sumsOf(trees, tree)
        lines.push(`  ${shownPath(tree)}: ${textOf(trees, tree)} (${files} ${files === 1 ? 'file' : 'files'}, ${sizeText(bytes)}${tree.newBytes === undefined ? '' : `, ${sizeText(tree.newBytes)} of it new`})`)
        if (tree.problem !== undefined && tree.state.kind !== 'failed' && tree.state.kind !== 'waiting') lines.push(`    ${tree.problem}`)
      }
      const commits = this.#commits()
      if (commits.length > 0) lines.push('Saved by this drive:')
      for (const commit of commits.reverse()) {
        lines.push(`  ${new Date(commit.atMs).toISOString()} ${nameText(commit.archive)}: ${commit.fileCount} files, ${sizeText(commit.originalSize)}, ${sizeText(commit.newBytes)} of it new`)
      }
    }
    const { size, maxBytes } = this.#cache()
    lines.push(`Cache: ${sizeText(size)} of ${sizeText(maxBytes)}`, '')
    return Buffer.from(lines.join('\n'))
  }

  /** Trees that are there: one is known from its first use on, also if that failed. */
  #shown(): [Trees, StagedTree][] {
    return this.#trees.flatMap(trees => [...trees.all()].filter(tree => trees.exists(tree)).map(tree => [trees, tree] as [Trees, StagedTree]))
  }

  /** The newest last. */
  #commits(): MadeCommit[] {
    return this.#trees.flatMap(({ commits }) => commits).sort((a, b) => a.atMs - b.atMs)
  }

  #sumsOf(trees: Trees, tree: StagedTree): Sums {
    const known = this.#sums.get(tree)
    const nowMs = performance.now()
    if (known && (known.version === tree.version || nowMs - known.atMs < keepSumsMs)) return known
    const sums = { version: tree.version, atMs: nowMs, ...trees.count(tree) }
    this.#sums.set(tree, sums)
    return sums
  }
}

function textOf(trees: Trees, tree: StagedTree): string {
  return describe(tree, performance.now(), trees.options)
}

function nameText(name: string): string {
  return shownText(bytesOf(name))
}

const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']

function sizeText(bytes: number): string {
  let value = bytes, unit = 0
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000
  return `${unit === 0 ? value : value.toFixed(2)} ${units[unit]!}`
}
