/**
 * Going to the background. Node cannot fork, so the command starts itself again in a session of its own: the child opens the
 * repository and mounts, with the terminal for its questions and complaints, then says "ready" through a pipe, and the parent
 * returns. Errors before that are the child's own words and exit code.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { waitingFd, waitingShell } from './signals.js'
import { type EndingSignal, endingSignals } from './exit.js'

const readyFd = 3

/** True in the process that was started to serve. */
export function isBackgroundChild(env: NodeJS.ProcessEnv): boolean {
  return env[waitingFd] !== undefined || env[waitingShell] !== undefined
}

/** Starts the serving process and waits until it is ready or has ended. Returns the exit code of this command. */
export function startInBackground(env: NodeJS.ProcessEnv): Promise<number> {
  return new Promise((resolve, reject) => {
    // A passphrase that comes by descriptor must be there under the same number.
    const passphraseFd = /^\d+$/.test(env.BORG_PASSPHRASE_FD ?? '') ? Number(env.BORG_PASSPHRASE_FD) : undefined
    const stdio: ('inherit' | 'pipe' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit', 'pipe']
    const childEnv: NodeJS.ProcessEnv = { ...env, [waitingFd]: String(readyFd) }
    if (passphraseFd !== undefined && passphraseFd >= 3) {
      stdio.push(passphraseFd)
      childEnv.BORG_PASSPHRASE_FD = '4'
    }
    // Ctrl-C at a passphrase prompt reaches this process only: the child has a session of its own. Signals are passed on to all that it
    // started, and kept until it listens: before that they could be lost, or find this process without anything to pass on to.
    let asked: EndingSignal | undefined, heard = ''
    const passOn = (name: EndingSignal): void => {
      if (heard === '') asked ??= name
      else process.kill(-child.pid!, name)
    }
    for (const name of endingSignals) process.on(name, passOn)
    const child = spawn(process.execPath, process.argv.slice(1), { detached: true, stdio, env: childEnv, argv0: process.argv0 })
    child.once('error', reject)
    let ready = false
    child.stdio[readyFd]!.on('data', (said: Buffer) => {
      if (heard === '' && asked) process.nextTick(passOn, asked)
      heard += said.toString()
      if (!heard.includes('ready')) return
      ready = true
      child.unref()
      resolve(0)
    })
    child.once('exit', (code, killed) => {
      if (!ready) resolve(code ?? (killed ? 128 + constants.signals[killed] : 2))
    })
  })
}

/** Tells the waiting parent, and lets go of the terminal and of the working directory. */
export function becomeReady(env: NodeJS.ProcessEnv): void {
  if (env[waitingFd] !== undefined) {
    const fd = Number(env[waitingFd])
    writeSync(fd, 'ready\n')
    closeSync(fd)
  } else if (Number(env[waitingShell]) === process.ppid) process.kill(process.ppid, 'SIGUSR1')
  process.chdir('/')
  // The lowest free descriptor is taken: 0, 1, 2 in turn.
  for (const [standard, flags] of [[0, 'r'], [1, 'w'], [2, 'w']] as const) {
    closeSync(standard)
    openSync('/dev/null', flags)
  }
}
