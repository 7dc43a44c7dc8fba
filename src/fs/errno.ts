/** From any error to the number the kernel is told: the only place that decides it. */
import { BorgError } from '../engine/errors.js'
import type { WireError } from './engine-port.js'
import { Errno } from './types.js'

/** A refusal with a known number, thrown below the operations. */
export class FsError extends Error {
  constructor(readonly errno: Errno, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'FsError'
  }
}

const byCode = new Map<string, Errno>(
  Object.values(Errno).filter((value): value is Errno => value instanceof Errno).map((errno) => [errno.code, errno]))

/** The number of an errno's name; EIO for one this program does not pass on. */
export function errnoByCode(code: string | undefined): Errno {
  return byCode.get(code ?? '') ?? Errno.EIO
}

/** Borg's message ids that are not EIO: what the person can repair, or what only has to wait. */
const byMsgid = new Map<string, Errno>([
  ['Archive.DoesNotExist', Errno.ENOENT],
  ['Archive.AlreadyExists', Errno.EEXIST],
  ['Repository.StorageQuotaExceeded', Errno.EDQUOT],
  ['Repository.InsufficientFreeSpaceError', Errno.ENOSPC],
  ['LockTimeout', Errno.EAGAIN],
  ['LockFailed', Errno.EAGAIN],
  ['LockError', Errno.EAGAIN],
  ['LockErrorT', Errno.EAGAIN],
])

/** What the kernel is told of `error`. Host file errors keep their number, everything unknown is EIO. */
export function errnoFrom(error: unknown): Errno {
  if (error instanceof FsError) return error.errno
  if (error instanceof BorgError) return byMsgid.get(error.msgid) ?? errnoByCode(hostCode(error.cause))
  return errnoByCode(hostCode(error))
}

function hostCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** An error in a form that can be posted to the other thread. */
export function wireError(error: unknown): WireError {
  return {
    code: errnoFrom(error).code,
    msgid: error instanceof BorgError ? error.msgid : undefined,
    message: error instanceof Error ? error.message : String(error),
  }
}
