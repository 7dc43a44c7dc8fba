/** The port through which rooms below the command line speak. Adapters live in cli/output. Never keys or passphrases. */

export type LogLevel = 'debug' | 'info' | 'warning' | 'error'

/** `topic` is the logger's name as clients see it, such as `borg.repository`. */
export interface Log {
  write(level: LogLevel, topic: string, message: string): void
}

/** Drops everything. */
export const silentLog: Log = { write() {} }
