/**
 * A folder of its own for one test, with homes for `borg` and `borgfs`, and ways to run both as a person would. Everything
 * mounted or started in it ends with close(), however the test ends.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInZygote, zygoteServes } from './borg-zygote.js'

export interface Ran {
  readonly rc: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Record<string, string | undefined>
  readonly input?: string | Buffer
  /** Exit codes that do not fail the test; default [0]. 'any' for none. */
  readonly ok?: readonly number[] | 'any'
  readonly timeoutMs?: number
}

/** Root of the checkout, also when the tests run from a compiled tree elsewhere. */
export const projectRoot = findRoot()

function findRoot(): string {
  let folder = process.env.BORGFS_FIXTURES ?? dirname(fileURLToPath(import.meta.url))
  for (;;) {
    if (existsSync(join(folder, 'binding.gyp'))) return folder
    const parent = dirname(folder)
    if (parent === folder) throw new Error('the checkout was not found above the compiled tests')
    folder = parent
  }
}

export const borgfsProgram = join(projectRoot, 'bin', 'borgfs.js')

/** True if the real Borg is here. scripts/test installs it; a bare `npm test` may lack it. */
export const haveBorg = spawnSync('borg', ['--version'], { stdio: 'ignore' }).status === 0
export const isRoot = process.getuid?.() === 0

export class Sandbox {
  readonly folder: string
  readonly #mounts = new Set<string>()
  readonly #children = new Set<ChildProcess>()

  constructor(name = 'test') {
    this.folder = mkdtempSync(join(tmpdir(), `borgfs-${name}-`))
    mkdirSync(join(this.folder, 'home'))
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts)
  }

  mkdir(...parts: string[]): string {
    const path = this.path(...parts)
    mkdirSync(path, { recursive: true })
    return path
  }

  /** Both programs share this home unless the test says otherwise. */
  env(extra: Record<string, string | undefined> = {}): NodeJS.ProcessEnv {
    const env: NodeJS.ProcessEnv = {
      PATH: process.env.PATH,
      HOME: this.path('home'),
      LANG: 'C.UTF-8',
      TZ: 'UTC',
      TMPDIR: tmpdir(),
      BORG_BASE_DIR: this.path('home'),
      BORG_PASSPHRASE: 'test passphrase',
      // Borg's test of itself at each start finds nothing about repositories.
      BORG_SELFTEST: 'disabled',
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
      BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
    }
    for (const [name, value] of Object.entries(extra)) {
      if (value === undefined) delete env[name]
      else env[name] = value
    }
    return env
  }

  /** The real Borg; where it can be, without the time that its start takes. */
  borg(args: readonly string[], options: RunOptions = {}): Ran {
    const { cwd = this.folder, env, input = '', timeoutMs = 300_000 } = options
    if (input.length > 0 || !zygoteServes(env ?? {})) return this.run('borg', args, options)
    const { rc, stdout, stderr } = runInZygote(args, { cwd, env: this.env(env), timeoutMs })
    return judged('borg', args, { rc: rc < 0 ? 128 : rc, stdout: stdout.toString('utf8'), stderr: stderr.toString('utf8') }, options)
  }

  borgfs(args: readonly string[], options: RunOptions = {}): Ran {
    return this.run(process.execPath, [borgfsProgram, ...args], options)
  }

  /** Runs a program to its end. An unexpected exit code is an error that shows what it said. */
  run(program: string, args: readonly string[], options: RunOptions = {}): Ran {
    const result = spawnSync(program, args, {
      cwd: options.cwd ?? this.folder,
      env: this.env(options.env),
      input: options.input ?? '',
      maxBuffer: 1 << 28,
      timeout: options.timeoutMs ?? 300_000,
    })
    if (result.error && !('status' in result && result.status !== null)) throw result.error
    const rc = result.status ?? 128
    const ran = { rc, stdout: result.stdout.toString('utf8'), stderr: result.stderr.toString('utf8') }
    return judged(program, args, ran, options)
  }

  sh(script: string, options: RunOptions = {}): Ran {
    return this.run('bash', ['-euo', 'pipefail', '-c', script], options)
  }

  /** Starts a program that goes on; killed with the sandbox. */
  start(program: string, args: readonly string[], options: RunOptions = {}): ChildProcess {
    const child = spawn(program, args, { cwd: options.cwd ?? this.folder, env: this.env(options.env), stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }

  /** `borgfs mount`; returns the mountpoint. */
  mount(location: string, options: { args?: readonly string[]; name?: string } & RunOptions = {}): string {
    const mountpoint = this.mkdir(options.name ?? 'mnt')
    this.borgfs(['mount', ...(options.args ?? []), location, mountpoint], options)
    this.#mounts.add(mountpoint)
    return mountpoint
  }

  unmount(mountpoint: string, options: RunOptions = {}): Ran {
    const ran = this.borgfs(['umount', mountpoint], options)
    if (!this.isMounted(mountpoint)) this.#mounts.delete(mountpoint)
    return ran
  }

  /**
   * unmount, and until all has ended that ran here: locks are given back at its end. What this process had open in the mount is open in a child of
   * another test as well until that executes, so a mount that is busy is tried again.
   */
  async leave(mountpoint: string, options: RunOptions = {}): Promise<Ran> {
    const ran = await eventually('the mount is not busy any more', () => {
      const tried = this.unmount(mountpoint, { ...options, ok: 'any' })
      return !tried.stderr.includes('target is busy') && tried
    }, 10_000)
    judged('borgfs', ['umount', mountpoint], ran, options)
    await this.allEnded()
    return ran
  }

  async allEnded(): Promise<void> {
    await eventually('all that ran in the sandbox has ended', () => this.processes().length === 0)
  }

  /** kill -9 for all that runs here, when all that was done a moment ago is the host's; what was mounted is taken away. */
  async killMount(mountpoint = this.path('mnt')): Promise<void> {
    await new Promise(resolve => setTimeout(resolve, 600))
    this.#killAll()
    await this.allEnded()
    this.run('umount', ['-l', mountpoint])
  }

  /** The real borg finds no fault in the repository, its data included; the error says what it found. */
  assertSound(repository = 'repo', options: RunOptions = {}): void {
    const { stderr } = this.borg(['check', '--verify-data', '-v', repository], options)
    if (!stderr.includes('no problems found')) throw new Error(stderr)
  }

  /** Names of archives, as borg lists them. */
  archives(repository = 'repo'): string[] {
    return this.borg(['list', '--short', repository]).stdout.split('\n').filter(Boolean)
  }

  /** The mount is cleaned up with the sandbox, whoever made it. */
  remember(mountpoint: string): void {
    this.#mounts.add(mountpoint)
  }

  isMounted(mountpoint: string): boolean {
    return readFileSync('/proc/self/mounts', 'utf8').split('\n').some(line => line.split(' ')[1] === mountpoint.replaceAll(' ', '\\040'))
  }

  /** Process ids of everything started in this sandbox (found by its folder in their arguments). */
  processes(): number[] {
    const found = spawnSync('pgrep', ['-f', this.folder]).stdout.toString().split('\n').filter(Boolean).map(Number)
    return found.filter(pid => pid !== process.pid)
  }

  #killAll(): void {
    for (const pid of this.processes()) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // gone already
      }
    }
  }

  close(): void {
    for (const mountpoint of this.#mounts) spawnSync('umount', ['-f', '-l', mountpoint], { stdio: 'ignore' })
    for (const mountpoint of this.#mounts) if (this.isMounted(mountpoint)) spawnSync('fusermount3', ['-uz', mountpoint], { stdio: 'ignore' })
    for (const child of this.#children) child.kill('SIGKILL')
    this.#killAll()
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

function judged(program: string, args: readonly string[], ran: Ran, { ok = [0] }: RunOptions): Ran {
  if (ok !== 'any' && !ok.includes(ran.rc)) throw new Error(`${program} ${args.join(' ')}: exit code ${ran.rc}\n${ran.stdout.slice(-2000)}\n${ran.stderr.slice(-4000)}`)
  return ran
}

/** Waits until `condition` gives something, looking every 50 ms. */
export async function eventually<T>(what: string, condition: () => T | undefined | false, timeoutMs = 120_000): Promise<T> {
  const end = Date.now() + timeoutMs
  for (;;) {
    const value = condition()
    if (value !== undefined && value !== false) return value
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}
