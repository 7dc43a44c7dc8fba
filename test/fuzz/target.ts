/**
 * What is fuzzed, and the rule for all of it: an input gives a value, or an error that was declared (BorgError and its family,
 * FsError). Anything else is a bug: a TypeError, an input that takes too long, memory beyond the bound.
 */
import { BorgError } from '../../src/engine/errors.js'
import { FsError } from '../../src/fs/errno.js'
import { mutateBytes } from './mutate.js'
import { Random } from './random.js'

export interface Target {
  readonly name: string
  /** Valid inputs to begin with. */
  readonly samples: readonly Buffer[]
  /** Takes one input. A returned string is a fault of its own: an invariant that did not hold. */
  run(input: Buffer): unknown
  readonly mutate?: (sample: Buffer, random: Random, samples: readonly Buffer[]) => Buffer
  /** Host errors are an answer, too: files were damaged so that the system refuses them. */
  readonly hostErrors?: boolean
  /** Inputs in the bounded run; targets that open whole repositories have fewer. */
  readonly count: number
}

/** One input may take so long, counted by the clock and by the processor as well: on a busy machine the clock alone says nothing. */
export const maxInputMs = 10_000
/** The process may grow by so much over what it had, whatever the input: one chunk of the largest allowed size, its copy, and the collector's slack. */
export const maxGrowthBytes = 640 << 20

const maxPool = 3000, maxPooledBytes = 1 << 16, batchSize = 24

export interface Finding {
  readonly target: string
  readonly seed: number
  readonly index: number
  readonly input: Buffer
  readonly what: string
}

/** Whether an input does something that none before did; coverage.ts implements it. */
export interface Novelty {
  isNew(): boolean
}

export interface FuzzOptions {
  readonly seed: number
  readonly maxCount: number
  readonly maxMs?: number
  readonly novelty?: Novelty
}

/** Ends at the first finding, or after the count or the time. Inputs with new coverage become samples. */
export async function fuzz(target: Target, options: FuzzOptions): Promise<{ count: number; samples: number; finding: Finding | undefined }> {
  const random = new Random(options.seed)
  const pool = [...target.samples]
  const began = performance.now()
  const memory = process.memoryUsage.rss()
  const mutate = target.mutate ?? mutateBytes
  const batch: Buffer[] = []
  let count = 0
  const found = (input: Buffer, what: string): Finding => ({ target: target.name, seed: options.seed, index: count, input, what })
  for (; count < options.maxCount; count++) {
    if (options.maxMs !== undefined && performance.now() - began > options.maxMs) break
    // The samples themselves first: they must be accepted like anything else.
    const input = count < target.samples.length ? pool[count]! : mutate(random.pick(pool), random, pool)
    const start = performance.now(), worked = process.cpuUsage()
    const what = await fault(target, Buffer.from(input))
    if (what !== undefined) return { count, samples: pool.length, finding: found(input, what) }
    const took = performance.now() - start
    const { user, system } = process.cpuUsage(worked)
    if (took > maxInputMs && (user + system) / 1000 > maxInputMs) return { count, samples: pool.length, finding: found(input, `took ${Math.round(took)} ms`) }
    if (count % 64 === 0) {
      const growth = process.memoryUsage.rss() - memory
      if (growth > maxGrowthBytes) return { count, samples: pool.length, finding: found(input, `the process grew by ${growth >> 20} MiB`) }
    }
    if (!options.novelty || input.length > maxPooledBytes) continue
    // Asking is dear: for some inputs together. One of them was worth it, the others do no harm.
    batch.push(input)
    if (batch.length < batchSize) continue
    if (options.novelty.isNew() && pool.length < maxPool) pool.push(...batch)
    batch.length = 0
  }
  return { count, samples: pool.length, finding: undefined }
}

/** What is wrong with the answer to one input. */
export async function fault(target: Target, input: Buffer): Promise<string | undefined> {
  try {
    const result: unknown = await target.run(input)
    return typeof result === 'string' ? result : undefined
  } catch (error) {
    if (error instanceof BorgError || error instanceof FsError) return undefined
    if (target.hostErrors && error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z]+$/.test(error.code) && 'syscall' in error) return undefined
    return error instanceof Error ? error.stack ?? error.message : String(error)
  }
}
