/** What is going on, as text for people and as JSON for programs (incoming.md §5). */
import { bytesOf, shownText } from '../../engine/text.js'
import type { ChunkCache } from '../chunk-cache.js'
import { describe, type StagedTree } from '../incoming/policy.js'
import { shownPath, type Trees } from '../incoming/trees.js'

export interface ReportFacts {
  /** As the person named it. */
  readonly repository: string
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
  readonly #trees: Trees | undefined
  readonly #cache: () => Pick<ChunkCache, 'size' | 'maxBytes'>
  readonly #sums = new WeakMap<StagedTree, Sums>()

  /** `trees`: undefined where nothing can be written. */
  constructor(facts: ReportFacts, trees: Trees | undefined, cache: () => Pick<ChunkCache, 'size' | 'maxBytes'>) {
    this.#facts = facts
    this.#trees = trees
    this.#cache = cache
  }

  json(): Buffer {
    const { size, maxBytes } = this.#cache()
    return Buffer.from(`${JSON.stringify({
      repository: this.#facts.repository, pid: process.pid, read_only: this.#trees === undefined,
      trees: this.#shown().map(tree => {
        const { files, bytes } = this.#sumsOf(tree)
        return {
          path: shownPath(tree), state: tree.state.kind === 'writing' ? this.#text(tree) : tree.state.kind, text: this.#text(tree), files, bytes,
          new_bytes: tree.newBytes ?? null, archive: tree.made ? nameText(tree.made.name) : null, problem: tree.problem ?? null,
        }
      }),
      cache: { bytes: size, max_bytes: maxBytes },
      commits: (this.#trees?.commits ?? []).map(commit => ({
        archive: nameText(commit.archive), time: new Date(commit.atMs).toISOString(), nfiles: commit.fileCount, original_size: commit.originalSize,
        deduplicated_size: commit.newBytes,
      })),
    }, undefined, 2)}\n`)
  }

  text(): Buffer {
    const lines = [`Repository: ${this.#facts.repository}`]
    if (!this.#trees) lines.push('Nothing can be copied in: the drive is read-only.')
    else {
      const shown = this.#shown()
      lines.push(shown.length === 0 ? 'Nothing is staged.' : 'Staged:')
      for (const tree of shown) {
        const { files, bytes } = this.#sumsOf(tree)
        lines.push(`  ${shownPath(tree)}: ${this.#text(tree)} (${files} ${files === 1 ? 'file' : 'files'}, ${sizeText(bytes)}${tree.newBytes === undefined ? '' : `, ${sizeText(tree.newBytes)} of it new`})`)
        if (tree.problem !== undefined && tree.state.kind !== 'failed' && tree.state.kind !== 'waiting') lines.push(`    ${tree.problem}`)
      }
      if (this.#trees.commits.length > 0) lines.push('Saved by this drive:')
      for (const commit of [...this.#trees.commits].reverse()) {
        lines.push(`  ${new Date(commit.atMs).toISOString()} ${nameText(commit.archive)}: ${commit.fileCount} files, ${sizeText(commit.originalSize)}, ${sizeText(commit.newBytes)} of it new`)
      }
    }
    const { size, maxBytes } = this.#cache()
    lines.push(`Cache: ${sizeText(size)} of ${sizeText(maxBytes)}`, '')
    return Buffer.from(lines.join('\n'))
  }

  #text(tree: StagedTree): string {
    return describe(tree, performance.now(), this.#trees!.options)
  }

  /** Trees that are there: one is known from its first use on, also if that failed. */
  #shown(): StagedTree[] {
    return this.#trees ? [...this.#trees.all()].filter(tree => this.#trees!.exists(tree)) : []
  }

  #sumsOf(tree: StagedTree): Sums {
    const known = this.#sums.get(tree)
    const nowMs = performance.now()
    if (known && (known.version === tree.version || nowMs - known.atMs < keepSumsMs)) return known
    const sums = { version: tree.version, atMs: nowMs, ...this.#trees!.count(tree) }
    this.#sums.set(tree, sums)
    return sums
  }
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
