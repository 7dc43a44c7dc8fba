/** Every golden repository through all rooms of the drive but the kernel, against what is known to be in it. */
import test from 'ava'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Passphrases } from '../../src/engine/crypto/passphrase.js'
import { silentLog } from '../../src/engine/log.js'
import { openRepository } from '../../src/engine/operations/open.js'
import { placesOf } from '../../src/engine/platform/places.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { Workers } from '../../src/engine/store/workers.js'
import { type Answer, type Call, copyBytes, LATER, type ReadBytes } from '../../src/fs/core.js'
import { EngineClient } from '../../src/fs/engine-client.js'
import { rootIno } from '../../src/fs/inodes.js'
import { MountService } from '../../src/fs/mount-service.js'
import { RepositorySource } from '../../src/fs/repository-source.js'
import { type Entry, Errno, type Ino, type Opened } from '../../src/fs/types.js'
import { VirtualFs } from '../../src/fs/virtual-fs.js'
import { fixtureJson, fixturePath } from '../helpers/fixtures.js'
import { noNotices } from '../../src/fs/fuse/transport.js'

interface GoldenItem {
  path?: string
  path_hex?: string
  type: 'dir' | 'file' | 'symlink' | 'fifo' | 'chr' | 'blk'
  mode: string
  uid: number
  gid: number
  mtime_ns: string
  atime_ns?: string
  size?: number
  sha256?: string
  hardlink_to?: string
  target?: string
  target_hex?: string
  rdev?: number
  part?: number
  xattrs?: { name?: string; name_hex?: string; value_hex: string }[]
  acl_access?: string
  acl_default?: string
}
interface GoldenRepo {
  file: string
  passphrase: string | null
  archives: { name: string; comment: string; items: GoldenItem[] }[]
}

const types = { dir: 0o040000, file: 0o100000, symlink: 0o120000, fifo: 0o010000, chr: 0o020000, blk: 0o060000 }

function bytes(text: string | undefined, hex: string | undefined): Buffer {
  return hex === undefined ? Buffer.from(text!) : Buffer.from(hex, 'hex')
}

/** The core with the engine in one thread; `ask` waits for late answers. */
async function serve(folder: string, repo: GoldenRepo) {
  const repository = await LocalRepository.open(join(folder, 'repo'), { lock: 'shared', lockWaitMs: 1000, log: silentLog })
  const keyfile = join(folder, 'keyfile')
  const places = { ...placesOf({ BORG_BASE_DIR: join(folder, 'base') }), keyFile: existsSync(keyfile) ? keyfile : undefined }
  const quiet = { ask: async () => undefined, say() {}, confirm: async () => true }
  const opened = await openRepository(repository, {
    places, passphrases: new Passphrases({ BORG_PASSPHRASE: repo.passphrase ?? '' }, quiet), questions: quiet, operation: 'read',
  })
  const workers = new Workers({ key: opened.key, count: 1 })
  const source: RepositorySource = new RepositorySource(opened, workers, {
    uid: 0, gid: 0, timeNs: 5n, numericIds: true, umask: 0, showParts: false, log: silentLog,
  }, () => service.lease.check(), () => Promise.reject(new Error('no cache here')))
  const client: EngineClient = new EngineClient({ post: (message) => queueMicrotask(() => service.receive(message)) })
  const service: MountService = new MountService({
    source, repository, locked: true, holdLock: false, refreshMs: 0, lockWaitMs: 0, log: silentLog, channel: { post: (message) => client.deliver(message) },
  })
  const fs = new VirtualFs({
    client, notices: noNotices,
    view: { kind: 'repository', archives: source.archives(), uid: 0, gid: 0, umask: 0, mountTimeNs: 5n, cacheBytes: 4 << 20, allowDamagedFiles: false },
  })
  const ask = <T>(operation: (call: Call<T>) => Answer<T>): Promise<T | Errno> => new Promise((resolve, reject) => {
    const copy = (value: T | Errno) => resolve(value instanceof Uint8Array ? Buffer.from(value) as unknown as T : value)
    const answer = operation({ uid: 0, gid: 0, pid: 1, defer: () => copy })
    if (answer !== LATER) copy(answer as T)
    setTimeout(() => reject(new Error('no answer')), 60_000).unref()
  })
  const close = async (): Promise<void> => {
    fs.destroy()
    client.close()
    await service.close()
    await workers.close()
    await repository.close()
    opened.key.wipe()
  }
  return { fs, ask, close }
}

async function readWhole(fs: VirtualFs, ask: <T>(operation: (call: Call<T>) => Answer<T>) => Promise<T | Errno>, ino: Ino): Promise<Buffer> {
  const opened = await ask<Opened>((call) => fs.open(ino, 0, call))
  if (opened instanceof Errno) throw new Error(opened.code)
  const pieces: Buffer[] = []
  for (let offset = 0; ;) {
    const into = Buffer.alloc(50_000)
    const answer = await ask<ReadBytes | number>((call) => fs.read(ino, opened.fh, offset, into, call as Call<ReadBytes>) as Answer<ReadBytes | number>)
    if (answer instanceof Errno) throw new Error(answer.code)
    const piece = into.subarray(0, typeof answer === 'number' ? answer : copyBytes(answer, into))
    if (piece.length === 0) break
    pieces.push(Buffer.from(piece))
    offset += piece.length
  }
  fs.release(ino, opened.fh)
  return Buffer.concat(pieces)
}

for (const repo of fixtureJson<{ repos: GoldenRepo[] }>('golden', 'fixtures.json').repos) {
  test.serial(`${repo.file} is shown as it is known`, async (t) => {
    const temporary = mkdtempSync(join(tmpdir(), 'borgfs-golden-'))
    try {
      execFileSync('tar', ['xzf', fixturePath('golden', repo.file), '-C', temporary])
      const { fs, ask, close } = await serve(join(temporary, repo.file.replace(/\.tar\.gz$/, '')), repo)
      try {
        const shown: string[] = []
        fs.readdir(rootIno, 0, 2, (name) => shown.push(Buffer.from(name).toString()) > 0, {} as Call<void>)
        t.deepEqual([...shown].sort(), repo.archives.map(({ name }) => name).sort())
        for (const archive of repo.archives) {
          const lookup = async (path: Buffer): Promise<Entry> => {
            let entry = await ask<Entry>((call) => fs.lookup(rootIno, Buffer.from(archive.name), call))
            for (const part of path.toString('latin1').split('/')) {
              if (entry instanceof Errno || entry.attr.ino === 0) break
              const { ino } = entry.attr
              if (part !== '.') entry = await ask<Entry>((call) => fs.lookup(ino, Buffer.from(part, 'latin1'), call))
            }
            if (entry instanceof Errno || entry.attr.ino === 0) throw new Error(`${archive.name}: ${path} is not shown`)
            return entry
          }
          const root = (await lookup(Buffer.from('.'))).attr.ino
          t.is(String(await ask<Uint8Array>((call) => fs.getxattr(root, Buffer.from('user.borgfs.archive.comment'), call))), archive.comment)
          // Of two items with one path the last counts.
          const items = new Map(archive.items.filter((item) => item.part === undefined).map((item) => [bytes(item.path, item.path_hex).toString('latin1'), item]))
          const masters = new Map([...items].map(([path, item]) => [path, item]))
          for (const [path, item] of items) {
            const where = `${archive.name}: ${path}`
            const own = item.hardlink_to === undefined ? item : masters.get(Buffer.from(item.hardlink_to).toString('latin1'))!
            const { attr } = await lookup(Buffer.from(path, 'latin1'))
            t.is(attr.mode, types[own.type] | parseInt(own.mode, 8), where)
            t.deepEqual([attr.uid, attr.gid, attr.mtimeNs], [own.uid, own.gid, BigInt(own.mtime_ns)], where)
            if (own.atime_ns) t.is(attr.atimeNs, BigInt(own.atime_ns), where)
            if (own.rdev !== undefined) t.is(attr.rdev, own.rdev, where)
            const links = [...items.values()].filter((other) => other.hardlink_to !== undefined && other.hardlink_to === (item.hardlink_to ?? item.path)).length
            t.is(attr.nlink, 1 + links, where)
            if (item.type === 'symlink') {
              t.deepEqual(await ask<Uint8Array>((call) => fs.readlink(attr.ino, call)), bytes(item.target, item.target_hex), where)
            }
            if (item.type === 'file') {
              const content = await readWhole(fs, ask, attr.ino)
              t.is(attr.size, item.size!, where)
              t.is(createHash('sha256').update(content).digest('hex'), item.sha256!, where)
            }
            const names = ((await ask<Uint8Array[]>((call) => fs.listxattr(attr.ino, call))) as Uint8Array[]).map((name) => Buffer.from(name))
            const expected = (own.xattrs ?? []).map((xattr) => [bytes(xattr.name, xattr.name_hex).toString('latin1'), xattr.value_hex])
            if ((own.acl_access ?? '').split('\n').length > 3) expected.push(['system.posix_acl_access', 'acl'])
            if (own.acl_default) expected.push(['system.posix_acl_default', 'acl'])
            const found: string[][] = []
            for (const name of names) {
              const value = (await ask<Uint8Array>((call) => fs.getxattr(attr.ino, name, call))) as Uint8Array
              const text = name.toString('latin1')
              found.push([text, text.startsWith('system.posix_acl') ? 'acl' : Buffer.from(value).toString('hex')])
            }
            t.deepEqual(found.sort(), expected.sort(), where)
          }
        }
      } finally {
        await close()
      }
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  })
}
