/** What happened -> exit code, legacy and modern (commands.md §4). */
import { BorgError } from '../engine/errors.js'

/** Modern codes of survivable trouble. */
export const warningCode = {
  generic: 1, fileChanged: 100, includePatternNeverMatched: 101, backup: 102, raceCondition: 103, backupOs: 104, backupPermission: 105, backupIo: 106, backupNotFound: 107,
} as const

const sentences = { SIGINT: 'Keyboard interrupt', SIGTERM: 'Received SIGTERM', SIGHUP: 'Received SIGHUP.' } as const
export type EndingSignal = keyof typeof sentences
export const endingSignals = Object.keys(sentences) as EndingSignal[]

/** A run that was ended by a signal in an orderly way. */
export class SignalError extends Error {
  constructor(readonly signal: EndingSignal) {
    super(sentences[signal])
  }

  get exitCode(): number {
    return 128 + { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 }[this.signal]
  }
}

export class ExitStatus {
  readonly #modern: boolean
  readonly #warnings = new Set<number>()
  #forced: number | undefined

  constructor(env: NodeJS.ProcessEnv) {
    this.#modern = env.BORG_EXIT_CODES === 'modern'
  }

  /** Notes survivable trouble of a kind. */
  warn(code: number): void {
    this.#warnings.add(code)
  }

  /** Trouble that Borg 1.2 ends with 0 all the same, and later versions as a warning. */
  warnModern(code: number): void {
    if (this.#modern) this.warn(code)
  }

  /** The exit code of something else is ours. */
  force(code: number): void {
    this.#forced = code
  }

  ofError(error: unknown): number {
    if (error instanceof SignalError) return error.exitCode
    return this.#modern && error instanceof BorgError ? error.exitCode : 2
  }

  get code(): number {
    if (this.#forced !== undefined) return this.#forced
    if (this.#warnings.size === 0) return 0
    return this.#modern && this.#warnings.size === 1 ? [...this.#warnings][0]! : 1
  }
}

/** Modern warning code of a failed file operation. */
export function warningOfErrno(code: string): number {
  if (code === 'EACCES' || code === 'EPERM') return warningCode.backupPermission
  if (code === 'EIO') return warningCode.backupIo
  if (code === 'ENOENT') return warningCode.backupNotFound
  return warningCode.backupOs
}
