import test from 'ava'
import { spawnSync } from 'node:child_process'
import { constants, mkdirSync, openSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { native, statField } from '../../src/engine/native.js'
import { clampTime } from '../../src/engine/operations/file-item.js'
import { projectRoot, Sandbox } from '../helpers/sandbox.js'

test('a time that 64 bits of nanoseconds do not tell is the nearest that they do', t => {
  const sandbox = new Sandbox('far-times')
  try {
    const file = sandbox.path('file'), most = 2n ** 63n - 1n
    writeFileSync(file, '')
    // 2262-04-11T23:47:16 with a fraction that is too much, and one that is not; 2300; 1901.
    for (const seconds of [9223372036.95, 9223372036.5, 10413792000, -2177452800, 0]) {
      utimesSync(file, seconds, seconds)
      const known = statSync(file, { bigint: true }).mtimeNs
      const row = native().readAttributes(Buffer.from(file), 0).stat
      t.is(row[statField.mtimeNs], known > most ? most : known, `${seconds}`)
      // What Borg stores: nothing before 1970 or after 2038.
      t.is(clampTime(row[statField.mtimeNs]!), known < 0n ? 0n : known > 2147310847000000000n ? 2147310847000000000n : known)
    }
  } finally {
    sandbox.close()
  }
})

test('any time is set, past what the host knows the last that it does', t => {
  const sandbox = new Sandbox('set-times')
  try {
    const file = sandbox.path('file'), second = 1_000_000_000n
    writeFileSync(file, '')
    const set = (ns: bigint): bigint => {
      native().utimensat(-100, Buffer.from(file), ns, ns)
      return statSync(file, { bigint: true }).mtimeNs
    }
    for (const ns of [0n, 1n, -1n, second - 1n, -second, -second - 1n, 2n ** 60n + 7n]) t.is(set(ns), ns)
    // The host's own limits are between these.
    const last = set(2n ** 200n), first = set(-(2n ** 200n))
    t.true(last >= 2n ** 31n * second - second && first <= -(2n ** 31n) * second, `${first} ${last}`)
    for (const ns of [2n ** 63n + 5n, 2n ** 64n + 5n, 10413792000n * second]) t.is(set(ns), ns < last ? ns : last)
  } finally {
    sandbox.close()
  }
})

/** Runs a command for which the system call openat2 (number 437 everywhere) fails with this errno, as in a container of a host that does not know it. */
const withoutOpenat2 = String.raw`
import ctypes, os, struct, sys
line = lambda code, yes, no, value: struct.pack('HBBI', code, yes, no, value)
lines = line(0x20, 0, 0, 0) + line(0x15, 0, 1, 437) + line(0x06, 0, 0, 0x00050000 | int(sys.argv[1])) + line(0x06, 0, 0, 0x7fff0000)
memory = ctypes.create_string_buffer(lines, len(lines))
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program, libc = Program(4, ctypes.cast(memory, ctypes.c_void_p)), ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0: sys.exit('no seccomp')
os.execvp(sys.argv[2], sys.argv[2:])
`

const opens = String.raw`
const { openBeneath } = require(process.argv[1]), fs = require('node:fs')
const root = fs.openSync(process.argv[2], fs.constants.O_DIRECTORY)
const said = path => { try { return fs.readFileSync(openBeneath(root, Buffer.from(path), 0, 0), 'utf8') } catch ({ code }) { return code } }
console.log(['folder/file', 'link/file', 'folder/../folder/file', 'folder/out', 'missing', '/etc/passwd'].map(said).join())
`

test('files are reached beneath a directory where openat2 is unknown, or forbidden for that', t => {
  const sandbox = new Sandbox('no-openat2')
  try {
    mkdirSync(sandbox.path('folder'))
    writeFileSync(sandbox.path('folder', 'file'), 'content')
    symlinkSync('folder', sandbox.path('link'))
    symlinkSync('/etc/passwd', sandbox.path('folder', 'out'))
    const words = [process.execPath, '-e', opens, join(projectRoot, 'build', 'Release', 'borgfs.node'), sandbox.path('.')]
    for (const errno of ['38', '1']) {
      const ran = spawnSync('python3', ['-c', withoutOpenat2, errno, ...words], { encoding: 'utf8' })
      if (ran.error || /no seccomp/.test(ran.stderr)) {
        t.log(`SKIPPED: no python3 or no seccomp here: ${ran.error?.message ?? ran.stderr}`)
        t.pass()
        return
      }
      t.regex(ran.stdout, /^content,(ENOTDIR|ELOOP),EXDEV,ELOOP,ENOENT,EXDEV\n$/, ran.stderr)
    }
    const root = openSync(sandbox.path('.'), constants.O_DIRECTORY)
    t.throws(() => native().openBeneath(root, Buffer.from('folder/out'), 0, 0), { code: 'ELOOP' })
  } finally {
    sandbox.close()
  }
})
