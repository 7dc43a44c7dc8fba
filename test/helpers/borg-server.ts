/**
 * The real Borg, many times in a row: one Python process has it loaded and forks for each command, which then runs as `borg` runs,
 * in a process of its own with its own arguments, folder and environment. Saves the half second that a start takes. The same
 * process tells what a tree of files holds, and changes trees at random from a seed.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { borgPython } from './borg-repository.js'
import type { Ran } from './sandbox.js'

/** One object of a tree. */
export interface TreeEntry {
  /** Below the tree's top, one character a byte. */
  readonly path: string
  readonly kind: 'file' | 'directory' | 'symlink' | 'fifo'
  readonly mode: number
  readonly owner: string
  /** The same for all names of one object. */
  readonly inode: number
  readonly size: number
  /** Nanoseconds, decimal. */
  readonly mtime: string
  /** Digest of the contents, or the target of a symlink. */
  readonly content: string
  /** Name and value in hex, sorted. */
  readonly xattrs: readonly (readonly [string, string])[]
}

const driver = String.raw`
import hashlib, json, os, random, shutil, stat, sys, tempfile
import borg.archiver

def command(request):
    said = [tempfile.TemporaryFile() for _ in range(2)]
    child = os.fork()
    if not child:
        try:
            os.chdir(request['cwd'])
            os.environ.clear()
            os.environ.update(request['env'])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for to, file in enumerate(said): os.dup2(file.fileno(), to + 1)
            sys.argv = ['borg'] + request['args']
            borg.archiver.main()
        except SystemExit as e:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(e.code)
        os._exit(99)
    rc = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for file in said: file.seek(0)
    return dict(rc=rc, stdout=said[0].read().decode(), stderr=said[1].read().decode())

def text(path): return path.decode('latin-1')

def contents(request):
    top = request['path'].encode()
    entries = []
    def visit(below):
        for name in sorted(os.listdir(os.path.join(top, below))):
            path = os.path.join(below, name); full = os.path.join(top, path)
            st = os.lstat(full); kind = {stat.S_IFREG: 'file', stat.S_IFDIR: 'directory', stat.S_IFLNK: 'symlink', stat.S_IFIFO: 'fifo'}[stat.S_IFMT(st.st_mode)]
            content = ''
            if kind == 'file':
                with open(full, 'rb') as f: content = hashlib.sha256(f.read()).hexdigest()
            if kind == 'symlink': content = text(os.readlink(full))
            xattrs = sorted([name, os.getxattr(full, name, follow_symlinks=False).hex()] for name in os.listxattr(full, follow_symlinks=False))
            entries.append(dict(path=text(path), kind=kind, mode=stat.S_IMODE(st.st_mode), owner='%d:%d' % (st.st_uid, st.st_gid), inode=st.st_ino,
                                size=0 if kind == 'directory' else st.st_size, mtime=str(st.st_mtime_ns), content=content, xattrs=xattrs))
            if kind == 'directory': visit(path)
    visit(b'')
    return entries

def mutate(request):
    """Changes the tree at path in some places; each thing that is changed gets a modification time that nothing else ever had."""
    rng = random.Random(request['seed'])
    top = request['path'].encode()
    done, root = [], os.geteuid() == 0
    clock = 1500000000 * 10**9 + request['seed'] % 10**6 * 10**12
    def stamp(path):
        nonlocal clock
        clock += rng.randrange(1, 10**10)
        os.utime(path, ns=(clock, clock), follow_symlinks=False)
    def places():
        folders, files, others = [b''], [], []
        for folder, names, leaves in os.walk(top):
            names.sort()
            for name in sorted(names) + sorted(leaves):
                full = os.path.join(folder, name); st = os.lstat(full)
                (folders if stat.S_ISDIR(st.st_mode) else files if stat.S_ISREG(st.st_mode) else others).append(os.path.relpath(full, top))
        return folders, files, others
    def fresh(folders): return os.path.join(rng.choice(folders), rng.choice([b'f%d', b'with space %d', b'odd \xe9\xff %d', 'ünï %d'.encode()]) % rng.randrange(10**6))
    def data():
        kind = rng.randrange(6)
        size = min(int(rng.lognormvariate(9.2, 1.6)), 300000)
        if kind == 0: return rng.randbytes(size)
        if kind == 1: return (b'%d the same line again and again\n' % rng.randrange(9)) * (size // 30)
        if kind == 2: return bytes(size)
        if kind == 3: return b''
        return b'\n'.join(b'%d %s' % (rng.randrange(10**rng.randrange(1, 9)), rng.choice([b'alpha', b'beta', b'gamma'])) for _ in range(size // 14))
    for _ in range(request['count']):
        folders, files, others = places()
        what = rng.choice(['new', 'new', 'write', 'append', 'overwrite', 'insert', 'truncate', 'hole', 'link', 'symlink', 'fifo', 'folder', 'rename', 'remove', 'chmod', 'xattr', 'copy'])
        if not files or len(files) < 4: what = 'new'
        elif len(files) > 22: what = 'remove'
        old = rng.choice(files) if files else b''
        old_path = os.path.join(top, old)
        path = fresh(folders)
        full = os.path.join(top, path)
        if what == 'new':
            with open(full, 'wb') as f: f.write(data())
        elif what == 'write':
            full = old_path
            with open(full, 'wb') as f: f.write(data())
        elif what in ('append', 'overwrite', 'insert'):
            full = old_path
            with open(full, 'r+b') as f:
                size = os.fstat(f.fileno()).st_size
                at = size if what == 'append' else rng.randrange(size + 1)
                f.seek(at); rest = f.read() if what == 'insert' else b''
                f.seek(at); f.write(rng.randbytes(rng.randrange(1, 3000)) + rest)
        elif what == 'truncate':
            full = old_path
            os.truncate(full, rng.randrange(os.lstat(full).st_size * 5 // 4 + 1))
        elif what == 'hole':
            with open(full, 'wb') as f:
                f.write(data()[:20000]); f.seek(rng.randrange(1, 40) * 4096, 1); f.write(b'end'); f.truncate(f.tell() + rng.randrange(3) * 70000)
        elif what == 'link': os.link(old_path, full)
        elif what == 'symlink':
            os.symlink(rng.choice([old, b'nowhere', b'\xff\xfe']), full)
        elif what == 'fifo':
            os.mkfifo(full)
        elif what == 'folder':
            if len(folders) > 6: continue
            os.mkdir(full)
        elif what == 'rename':
            old_path = os.path.join(top, rng.choice(files + others))
            os.rename(old_path, full)
        elif what == 'remove':
            if rng.randrange(8) == 0 and len(folders) > 3: shutil.rmtree(os.path.join(top, rng.choice(folders[1:])))
            else: os.unlink(os.path.join(top, rng.choice(files + others)))
            continue
        elif what == 'chmod':
            full = os.path.join(top, rng.choice(files + folders[1:]))
            os.chmod(full, rng.choice([0o644, 0o600, 0o4755, 0o700, 0 if root else 0o400]))
            if root: os.lchown(full, rng.randrange(5), rng.randrange(5))
        elif what == 'xattr':
            full = os.path.join(top, rng.choice(files + folders[1:]))
            os.setxattr(full, 'user.%s' % rng.choice(['a', 'b', 'long name']), rng.choice([b'', b'text', rng.randbytes(50)]))
        elif what == 'copy': shutil.copyfile(old_path, full)
        stamp(full)
        done.append(what)
    return done

for line in sys.stdin:
    request = json.loads(line)
    try: answer = dict(value=dict(command=command, contents=contents, mutate=mutate)[request['op']](request))
    except Exception as e: answer = dict(error='%s: %s' % (type(e).__qualname__, e))
    print(json.dumps(answer), flush=True)
`

/** Answers one request at a time, in order; they may be sent at once. */
export class BorgServer {
  readonly #child: ChildProcessWithoutNullStreams = spawn(borgPython!, ['-c', driver], { stdio: ['pipe', 'pipe', 'pipe'] })
  readonly #waiting: { resolve(value: unknown): void; reject(error: Error): void }[] = []
  #errors = ''

  constructor() {
    createInterface(this.#child.stdout).on('line', line => {
      const { resolve, reject } = this.#waiting.shift()!
      const answer = JSON.parse(line) as { value?: unknown; error?: string }
      if (answer.error === undefined) resolve(answer.value)
      else reject(new Error(answer.error))
    })
    this.#child.stderr.on('data', (data: Buffer) => (this.#errors += data.toString()))
    // All that it answered was read by then.
    this.#child.once('close', () => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error(`borg's process ended: ${this.#errors.slice(-2000)}`))
    })
  }

  /** Standard input is empty. */
  run(args: readonly string[], options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv }): Promise<Ran> {
    return this.#ask({ op: 'command', args, cwd: options.cwd, env: options.env }) as Promise<Ran>
  }

  /** All below `path`, without `path` itself. */
  contents(path: string): Promise<TreeEntry[]> {
    return this.#ask({ op: 'contents', path }) as Promise<TreeEntry[]>
  }

  /** `count` changes; what kinds they were. Each seed is for one call: times of files come from it. */
  mutate(path: string, seed: number, count: number): Promise<string[]> {
    return this.#ask({ op: 'mutate', path, seed, count }) as Promise<string[]>
  }

  close(): void {
    this.#child.kill('SIGKILL')
  }

  #ask(request: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#child.stdin.write(`${JSON.stringify(request)}\n`)
    })
  }
}
