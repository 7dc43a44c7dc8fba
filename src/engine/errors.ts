/**
 * The root of everything the engine throws on purpose. A class is declared in the room that throws it; here are only
 * the families. `msgid`, the sentence and the exit code are what scripts read (docs of Borg: internals/frontends).
 */

/** An expected failure, told to the person in one sentence. `exitCode` is the modern code; legacy mode always ends with 2. */
export class BorgError extends Error {
  /** Borg's message id, such as `Repository.DoesNotExist`. */
  readonly msgid: string
  /** Exit code when BORG_EXIT_CODES=modern. */
  readonly exitCode: number

  constructor(msgid: string, message: string, exitCode = 2, options?: ErrorOptions) {
    super(message, options)
    this.name = msgid
    this.msgid = msgid
    this.exitCode = exitCode
  }
}

/** Stored bytes are not what they should be. Readers in a mount turn it into EIO; it never yields data. */
export class IntegrityError extends BorgError {
  constructor(detail: string, options?: ErrorOptions & { msgid?: string; exitCode?: number }) {
    super(options?.msgid ?? 'IntegrityError', `Data integrity error: ${detail}`, options?.exitCode ?? 90, options)
  }
}

/** What a command line or a combination of options asks is impossible. */
export class CommandError extends BorgError {
  constructor(message: string, options?: ErrorOptions) {
    super('CommandError', message, 4, options)
  }
}

/** Whether the code of a host file error says that there is no room: on the disk, or in the user's quota. */
export function saysNoRoom(code: string | undefined): boolean {
  return code === 'ENOSPC' || code === 'EDQUOT'
}

/** A host file error of our own: what is there is not what must be. `syscall`: the call that would have said so. */
export function ioError(message: string, syscall?: string): Error {
  return Object.assign(new Error(message), { code: 'EIO', errno: -5, ...(syscall && { syscall }) })
}

/** The errno name of a host file error (`ENOENT`), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return undefined
}

/** The text of any thrown thing. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
