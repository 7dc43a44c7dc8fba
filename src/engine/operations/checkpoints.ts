/**
 * Checkpoints of an archive in the making (archive.md §8): from time to time, and when a person wants to stop, what there is so
 * far is committed as NAME.checkpoint. Whoever is killed later loses only what came after it.
 */
import { BorgError } from '../errors.js'
import type { Manifest } from '../archive/manifest.js'

export interface CheckpointOptions {
  /** Time between two checkpoints; 0: never. */
  readonly intervalMs: number
  /** Aborted: one more checkpoint, then the end of the run (Stopped). */
  readonly stop?: AbortSignal
  /** Before and after a checkpoint that `stop` asked for. */
  told?(state: 'starting' | 'finished'): void
}

/** The run was ended by a wish: what it had done is in a checkpoint. */
export class Stopped extends BorgError {
  constructor() {
    super('Error', 'Got Ctrl-C / SIGINT.')
  }
}

export class CheckpointClock {
  readonly #options: CheckpointOptions
  #last = performance.now()

  constructor(options: CheckpointOptions) {
    this.#options = options
  }

  get stopping(): boolean {
    return this.#options.stop?.aborted ?? false
  }

  get due(): boolean {
    return this.stopping || (this.#options.intervalMs > 0 && performance.now() - this.#last > this.#options.intervalMs)
  }

  async run(work: () => Promise<void>): Promise<void> {
    const { stopping } = this
    if (stopping) this.#options.told?.('starting')
    await work()
    this.#last = performance.now()
    if (stopping) this.#options.told?.('finished')
  }
}

/** The first of NAME.checkpoint, NAME.checkpoint.1 … that is free: those of earlier runs stay. A byte string. */
export function checkpointName(manifest: Manifest, name: string): string {
  for (let number = 0; ; number++) {
    const candidate = `${name}.checkpoint${number === 0 ? '' : `.${number}`}`
    if (!manifest.archives.has(candidate)) return candidate
  }
}
