/**
 * Mounts a MemoryFs from a child process. A process that serves a mount and touches it waits for itself, so the serving
 * is always another's. Whatever happens, `close` unmounts, ends the child and removes the folder.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { accessSync, chmodSync, constants, existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MountOptions } from '../../src/fs/fuse/transport.js'
import type { MemoryFsOptions } from './memory-fs.js'
import type { MountCommand, MountFacts } from './mount-commands.js'

export interface MountChildSettings {
  readonly mountpoint: string
  readonly transport: 'kernel' | 'fuse-native'
  readonly options?: Partial<MountOptions>
  readonly memory?: MemoryFsOptions
  readonly files?: Record<string, string>
  /** Files in the directory `many`. */
  readonly manyEntries?: number
  readonly onlyUid?: number
}

export interface MountMemoryOptions extends Partial<Omit<MountChildSettings, 'mountpoint'>> {
  /** Run as the user nobody, in a mount namespace of its own where /dev/fuse is for everybody, as distributions have it. */
  readonly asNobody?: boolean
  /** Default: a new folder. */
  readonly mountpoint?: string
}

/** False where nothing can be mounted: no device, no rights. Tests that need it say so when they skip. */
export const canMount = process.getuid?.() === 0 && deviceOpens()

export const nobody = 65534

function deviceOpens(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

export interface Finished {
  readonly rc: number
  readonly stdout: string
  readonly stderr: string
}

interface Message {
  readonly ready?: true
  readonly failed?: string
  readonly log?: string
  readonly done?: MountFacts
  readonly end?: string
  readonly handles?: number
  readonly unmounted?: true
}

export class MountedMemory {
  readonly folder: string
  readonly mountpoint: string
  readonly logs: string[] = []
  /** How the session ended, once it did. */
  end: { readonly end: string; readonly handles: number } | undefined
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  readonly #waiting: { readonly take: (message: Message) => boolean; readonly done: (message: Message) => void; readonly failed: (error: Error) => void }[] = []
  readonly #nobody: boolean

  private constructor(folder: string, settings: MountChildSettings, asNobody: boolean) {
    this.folder = folder
    this.mountpoint = settings.mountpoint
    this.#nobody = asNobody
    const program = fileURLToPath(new URL('./mount-child.js', import.meta.url))
    const command = [process.execPath, program, JSON.stringify(settings)]
    const [first, ...rest] = asNobody ? ['unshare', '-m', 'sh', '-c', asNobodyScript, 'sh', folder, ...command] : command
    this.#child = spawn(first!, rest, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], cwd: '/' })
    // 'close', not 'exit': what it said last may still be in the channel when its process is gone.
    this.#exited = new Promise((resolve) => this.#child.once('close', () => resolve()))
    this.#child.on('message', (message: Message) => this.#take(message))
    this.#child.once('close', () => {
      for (const { failed } of this.#waiting.splice(0)) failed(new Error(`the serving process ended; log: ${this.logs.join('\n')}`))
    })
  }

  /** Mounts and waits until it is served. Rejects with the child's sentence if it cannot. */
  static async start(options: MountMemoryOptions = {}): Promise<MountedMemory> {
    const folder = mkdtempSync(join(tmpdir(), 'borgfs-mount-'))
    chmodSync(folder, 0o755)
    const mountpoint = options.mountpoint ?? join(folder, 'mnt')
    if (!options.mountpoint) {
      mkdirSync(mountpoint)
      chmodSync(mountpoint, 0o777)
    }
    const { asNobody = false, ...settings } = options
    const mounted = new MountedMemory(folder, { transport: 'kernel', ...settings, mountpoint }, asNobody)
    try {
      await mounted.#next((message) => message.ready === true)
      return mounted
    } catch (error) {
      await mounted.close()
      throw error
    }
  }

  get pid(): number {
    return this.#child.pid!
  }

  path(...parts: string[]): string {
    return join(this.mountpoint, ...parts)
  }

  /** One command to the serving process. */
  async tell(command: MountCommand): Promise<MountFacts> {
    this.#child.send(command)
    return (await this.#next((message) => message.done !== undefined)).done!
  }

  /** By the session's own means. */
  async unmount(how: { lazy?: boolean } = {}): Promise<void> {
    this.#child.send({ unmount: how })
    await this.#next((message) => message.unmounted === true)
  }

  /** When the serving process is gone. */
  async exited(): Promise<void> {
    await this.#exited
  }

  /** As kill -9 would end it. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** Runs a program that sees the mount; its working directory is the mountpoint. Any exit code. */
  run(program: string, args: readonly string[], options: { input?: string; cwd?: string } = {}): Promise<Finished> {
    const cwd = options.cwd ?? this.mountpoint
    const [first, ...rest] = this.#nobody
      ? ['nsenter', '-t', String(this.pid), '-m', 'setpriv', '--reuid', String(nobody), '--regid', String(nobody), '--clear-groups',
          // --wd of nsenter is looked up outside of the namespace.
          'sh', '-c', 'cd "$0" && exec "$@"', cwd, program, ...args]
      : [program, ...args]
    return new Promise((resolve, reject) => {
      const child = execFile(first!, rest, { cwd: this.#nobody ? '/' : cwd, maxBuffer: 1 << 28, env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC' } },
        (error, stdout, stderr) => {
          const code: unknown = error?.code
          if (typeof code === 'string') reject(error!)
          else resolve({ rc: error ? (typeof code === 'number' ? code : 128) : 0, stdout, stderr })
        })
      // A program that does not read its input may be gone already.
      child.stdin!.on('error', () => undefined).end(options.input ?? '')
    })
  }

  /** A shell script that must succeed; its output. */
  async sh(script: string): Promise<string> {
    const { rc, stdout, stderr } = await this.run('bash', ['-euo', 'pipefail', '-c', script])
    if (rc !== 0) throw new Error(`exit code ${rc}: ${script}\n${stdout}${stderr}\nlog: ${this.logs.join('\n')}`)
    return stdout
  }

  /** A Python program that must succeed; its output. `os` and `sys` are imported. */
  async python(program: string): Promise<string> {
    const { rc, stdout, stderr } = await this.run('python3', ['-c', `import os, sys\n${program}`])
    if (rc !== 0) throw new Error(`exit code ${rc}: ${stderr}\nlog: ${this.logs.join('\n')}`)
    return stdout
  }

  async close(): Promise<void> {
    for (const { failed } of this.#waiting.splice(0)) failed(new Error('closed'))
    if (!this.#nobody && isMounted(this.mountpoint)) spawnSync('umount', ['-l', this.mountpoint])
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      // In a namespace of its own the mount goes with its last process.
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), this.#nobody ? 0 : 60_000)
      await this.#exited
      clearTimeout(timer)
    }
    rmSync(this.folder, { recursive: true, force: true })
  }

  #take(message: Message): void {
    if (message.log !== undefined) this.logs.push(message.log)
    if (message.end !== undefined) this.end = { end: message.end, handles: message.handles ?? 0 }
    const found = this.#waiting.findIndex(({ take }) => message.failed !== undefined || take(message))
    if (found < 0) return
    const [waiter] = this.#waiting.splice(found, 1)
    if (message.failed !== undefined) waiter!.failed(new Error(message.failed))
    else waiter!.done(message)
  }

  #next(take: (message: Message) => boolean): Promise<Message> {
    return new Promise((done, failed) => this.#waiting.push({ take, done, failed }))
  }
}

/** $1 folder, then the command. The bind mount and all others end with the namespace. */
const asNobodyScript = `set -e
mount --make-rprivate /
mount -t tmpfs -o dev,mode=755 none "$1"
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse
mkdir "$1/mnt"
chown ${nobody}:${nobody} "$1/mnt"
shift
exec setpriv --reuid ${nobody} --regid ${nobody} --clear-groups "$@"`

function isMounted(path: string): boolean {
  if (!existsSync(join(path, '..'))) return false
  try {
    return statSync(path).dev !== statSync(join(path, '..')).dev
  } catch {
    // ENOTCONN: mounted, and dead.
    return true
  }
}
