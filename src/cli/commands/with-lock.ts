/**
 * `with-lock` (commands.md): runs a program while the repository is locked, for copying or snapshotting it. Borg commits an
 * unchanged manifest around it, which its protocol for servers needs; ours leaves the repository as it is.
 */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { borgVersion } from '../../engine/constants.js'
import { BorgError, errnoOf, messageOf } from '../../engine/errors.js'
import { RepositoryHome } from '../../engine/repository/repository-home.js'
import type { Command } from '../command.js'
import { SignalError } from '../exit.js'

export const withLock: Command = async context => {
  const path = context.localPath(context.location('repository'))
  const home = await RepositoryHome.open(path, { lock: 'exclusive', lockWaitMs: context.lockWaitMs, log: context.log })
  context.atEnd(() => home.close())
  const signal = context.signals.answer()
  const program = context.positional('command')[0]!
  // The passphrase is nobody else's business.
  const { BORG_PASSPHRASE: _, ...env } = context.env
  const child = spawn(program, context.positional('args'), { stdio: 'inherit', env: { ...env, BORG_VERSION: borgVersion } })
  // The lock is kept until the program has ended: it may still be reading.
  const pass = (): void => void child.kill(signal.reason instanceof SignalError ? signal.reason.signal : 'SIGTERM')
  signal.addEventListener('abort', pass)
  try {
    const code = await new Promise<number>((resolve, reject) => {
      child.once('error', error => reject(notStarted(program, error)))
      child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]))
    })
    signal.throwIfAborted()
    context.exit.force(code)
  } finally {
    signal.removeEventListener('abort', pass)
  }
}

function notStarted(program: string, error: Error): BorgError {
  const reason = errnoOf(error) === 'ENOENT' ? 'there is no such program' : errnoOf(error) === 'EACCES' ? 'it may not be executed' : messageOf(error)
  return new BorgError('Error', `'${program}' was not started: ${reason}.`)
}
