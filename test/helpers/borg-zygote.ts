/**
 * The real `borg` without its start: one Python process for each test file has it loaded and forks for each command, which then runs
 * as it always does, in a process of its own with its own arguments, folder, environment and files for what it says. What a
 * person gets takes half a second longer, nine tenths of it for imports and a test of itself. Synchronous, as Sandbox.run is.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { borgPython } from './borg-repository.js'

const driver = String.raw`
import json, os, select, signal, sys
requests, answers = os.fdopen(3, 'r'), os.fdopen(4, 'w')
import borg.archiver
for line in iter(requests.readline, ''):
    request = json.loads(line)
    said = [os.open(request['said'] + end, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600) for end in ('.1', '.2')]
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for to, file in enumerate(said): os.dup2(file, to + 1); os.close(file)
        os.closerange(3, 64)
        os.chdir(request['cwd'])
        os.environ.clear()
        os.environ.update(request['env'])
        sys.argv = [request['program']] + request['args']
        # Ends this process as it would end one of its own.
        sys.exit(borg.archiver.main())
    for file in said: os.close(file)
    process = os.pidfd_open(child)
    if not select.select([process], [], [], request['seconds'])[0]: os.kill(child, signal.SIGKILL)
    os.close(process)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), file=answers, flush=True)
`

/** What is looked at when a Python process or Borg's modules are loaded, and so cannot be another's for one command. */
const atStart = /^(?:LANG|LC_|PYTHON|TZ$|LD_|BORG_(?:WORKAROUNDS|FUSE_IMPL|HOST_ID)$)/

interface Zygote {
  readonly folder: string
  readonly requests: number
  readonly answers: number
}
let zygote: Zygote | undefined
const program = spawnSync('sh', ['-c', 'command -v borg']).stdout?.toString().trim()

function started(env: NodeJS.ProcessEnv): Zygote {
  if (zygote) return zygote
  const folder = mkdtempSync(join(tmpdir(), 'borg-zygote-'))
  const [requests, answers] = [join(folder, 'requests'), join(folder, 'answers')]
  spawnSync('mkfifo', [requests, answers])
  const child = spawn('sh', ['-c', 'exec 3< "$0" 4> "$1" "$2" -c "$3"', requests, answers, borgPython!, driver], { stdio: ['ignore', 'ignore', 'inherit'], env })
  child.unref()
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  // Both wait for the other side; it ends when ours is closed, at the latest with this process.
  return (zygote = { folder, requests: openSync(requests, 'w'), answers: openSync(answers, 'r') })
}

/** Whether a command with these differences from a sandbox's own environment can be run here. */
export function zygoteServes(differences: Record<string, string | undefined>): boolean {
  return borgPython !== undefined && !Object.keys(differences).some(name => atStart.test(name))
}

/** Runs `borg`; standard input is empty. `rc` is negative for a signal. */
export function runInZygote(args: readonly string[], options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv; readonly timeoutMs: number }): { rc: number; stdout: Buffer; stderr: Buffer } {
  const { folder, requests, answers } = started(options.env)
  const said = join(folder, 'said')
  const request = Buffer.from(`${JSON.stringify({ program, args, cwd: options.cwd, env: options.env, said, seconds: options.timeoutMs / 1000 })}\n`)
  for (let done = 0; done < request.length; ) done += writeSync(requests, request, done)
  const bytes = Buffer.alloc(100)
  const length = readSync(answers, bytes)
  if (length === 0) throw new Error('the process that runs borg has ended')
  return { rc: Number(bytes.toString('latin1', 0, length)), stdout: readFileSync(`${said}.1`), stderr: readFileSync(`${said}.2`) }
}
