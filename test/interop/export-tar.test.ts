/** export-tar beside the real borg: the same bytes, through filters and past patterns. */
import test from 'ava'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = haveBorg ? test : test.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/export-tar needs the real borg')

const tree = `
import os
for name in ('dir', 'dir/deep', 'dir/' + 'd' * 120, 'empty', 'z'): os.mkdir(name)
def put(name, content): open(name, 'wb').write(content)
put('a', b'first'); put('dir/blocks', bytes(range(256)) * 8); put('dir/deep/odd', b'x' * 513); put('none', b'')
put('dir/large', os.urandom(5_000_000))
put('n' * 100, b'100'); put('n' * 101, b'101'); put('n' * 255, b'255')
put('dir/' + 'd' * 120 + '/' + 'f' * 200, b'long')
put(b'not-\\xff-text', b'bytes'); put('caf\\u00e9', b'text'); put('new\\nline', b'line')
os.symlink('a', 'link'); os.symlink('t' * 300, 'long-link'); os.symlink(b'to-\\xff', 'bytes-link'); os.symlink('../nowhere', 'z/link')
os.link('a', 'dir/deep/hard'); os.link('a', 'zz-hard'); os.link('dir/large', 'z/large'); os.link('dir/large', 'z/larger'); os.link('n' * 255, 'z/long')
os.mkfifo('fifo'); os.link('fifo', 'z/fifo')
for name, kind in (('chr', 0o20640), ('blk', 0o60640)):
  try: os.mknod(name, kind, os.makedev(300, 70000)); os.link(name, 'z/' + name)
  except PermissionError: pass
os.chmod('a', 0o6755); os.chmod('dir', 0o1777)
os.chown('none', 2 ** 21 + 5, 2 ** 31); os.chown('dir/blocks', 1, 12345)
for name, at in (('a', -1.5), ('none', 2 ** 33 + 0.5), ('dir/blocks', 0.999), ('dir/deep/odd', 1e9 + 0.99999999)): os.utime(name, (at, at))
os.utime('empty', ns=(0, 1_700_000_000_999_999_999))
`

function pair(sandbox: Sandbox, args: readonly string[], file: string): { ours: ReturnType<Sandbox['borg']> & { bytes: Buffer | undefined }; theirs: ReturnType<Sandbox['borg']> & { bytes: Buffer | undefined } } {
  const result = (program: 'borg' | 'borgfs') => {
    sandbox.sh(`rm -rf ${program}-out; mkdir ${program}-out`)
    const ran = sandbox[program](['export-tar', ...args.map(word => word.replace('FILE', `${program}-out/${file}`))], { ok: 'any' })
    const path = sandbox.path(`${program}-out`, file)
    return { ...ran, bytes: existsSync(path) ? readFileSync(path) : undefined }
  }
  return { ours: result('borgfs'), theirs: result('borg') }
}

const digest = (bytes: Buffer | undefined): string | undefined => bytes && createHash('sha256').update(bytes).digest('hex')

run('every kind of item, odd names, numbers that do not fit, patterns and stripped components give the tar that borg gives', t => {
  const sandbox = new Sandbox('export-tar')
  try {
    const source = sandbox.mkdir('source')
    sandbox.run('python3', ['-c', tree], { cwd: source })
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    sandbox.borgfs(['create', '../repo::ours', '.'], { cwd: source })
    sandbox.borg(['create', 'repo::theirs', 'source'])
    for (const args of [
      ['repo::ours', 'FILE'], ['repo::theirs', 'FILE'], ['--list', 'repo::ours', 'FILE'], ['--strip-components', '1', 'repo::theirs', 'FILE'], ['--strip-components', '2', 'repo::theirs', 'FILE'],
      ['--strip-components', '3', '--list', 'repo::theirs', 'FILE'], ['repo::ours', 'FILE', 'dir', 'nowhere'], ['-e', 'a', '-e', 'dir/large', '-e', 'n*', 'repo::ours', 'FILE'],
      ['repo::theirs', 'FILE', 'source/z'], ['--strip-components', '2', 'repo::theirs', 'FILE', 'source/z', 'source/zz-hard'], ['repo::none', 'FILE'], ['repo::ours'], ['repo::ours', 'no/where/FILE'],
      ['--log-json', '--progress', '--list', 'repo::ours', 'FILE', 'a', 'link'],
    ]) {
      const { ours, theirs } = pair(sandbox, args, 'out.tar')
      t.is(digest(ours.bytes), digest(theirs.bytes), args.join(' '))
      t.is(ours.rc, theirs.rc, args.join(' '))
      if (args.includes('no/where/FILE')) t.regex(ours.stderr, /No such file or directory: 'no\/where\//)
      else {
        // Borg tells the percentage before the piece in hand, and counts symlinks' targets.
        const told = ({ stderr }: { stderr: string }): string[] => stderr.replace(/"(time|operation)": [0-9.]+/g, '').replace(/^borg(fs)? /gm, '').split('\n').filter(line => !line.startsWith('usage:') && !/^ {8,}/.test(line) && !line.includes('% Processing'))
          .map(line => (line.startsWith('{') ? JSON.stringify(Object.entries(JSON.parse(line.replace(/, , |, }|{, /g, found => (found === ', , ' ? ', ' : found === ', }' ? '}' : '{'))) as object).sort()) : line))
        t.deepEqual(told(ours), told(theirs), args.join(' '))
      }
    }
    // And a real tar takes it.
    sandbox.borgfs(['export-tar', 'repo::ours', 'whole.tar'])
    const back = sandbox.mkdir('back')
    sandbox.sh('tar xpf ../whole.tar', { cwd: back })
    t.is(sandbox.run('diff', ['-r', '--no-dereference', '-x', 'fifo', '-x', 'chr', '-x', 'blk', source, back]).stdout, '')
    t.is(statSync(sandbox.path('back/a')).ino, statSync(sandbox.path('back/zz-hard')).ino)
  } finally {
    sandbox.close()
  }
})

run('filters go by the name or are named; stdout; what fails leaves a clear sentence, and no program runs on', t => {
  const sandbox = new Sandbox('export-tar-filters')
  try {
    const source = sandbox.mkdir('source')
    sandbox.sh('head -c 3000000 /dev/urandom > random; seq 200000 > numbers; for i in $(seq 300); do echo $i > f$i; done', { cwd: source })
    sandbox.borg(['init', '-e', 'none', 'repo'])
    sandbox.borg(['create', '../repo::a', '.'], { cwd: source })
    const plain = pair(sandbox, ['repo::a', 'FILE'], 'out.tar').theirs.bytes!
    for (const [file, program] of [['x.tar.gz', 'gzip'], ['x.tgz', 'gzip'], ['x.tar.bz2', 'bzip2'], ['x.tar.xz', 'xz'], ['x.tar.zst', 'zstd'], ['x.tar.lz4', 'lz4']] as const) {
      if (sandbox.run('sh', ['-c', `command -v ${program}`], { ok: 'any' }).rc !== 0) continue
      sandbox.borgfs(['export-tar', 'repo::a', file])
      sandbox.sh(`${program} -dc ${file} > unpacked.tar`)
      t.is(digest(readFileSync(sandbox.path('unpacked.tar'))), digest(plain), file)
    }
    sandbox.sh(`"$NODE" "$BORGFS" export-tar repo::a - > stdout.tar; "$NODE" "$BORGFS" export-tar --tar-filter 'gzip -1' repo::a - | gunzip > filtered.tar`, { env: { NODE: process.execPath, BORGFS: new URL('../../../bin/borgfs.js', import.meta.url).pathname } })
    for (const file of ['stdout.tar', 'filtered.tar']) t.is(digest(readFileSync(sandbox.path(file))), digest(plain), file)

    writeFileSync(sandbox.path('not-a-program'), 'x')
    chmodSync(sandbox.path('not-a-program'), 0o644)
    for (const filter of ['no-such-program -x', './not-a-program', '"open', ' ', 'sh -c "exit 7"', 'sh -c "cat > /dev/null; exit 3"', 'sh -c "head -c 10; exit 0"']) {
      const { ours, theirs } = pair(sandbox, ['--tar-filter', filter, 'repo::a', 'FILE'], 'out.tar')
      t.is(ours.rc, 2, filter)
      t.is(theirs.rc, 2, filter)
      t.notRegex(ours.stderr, /^ +at /m)
      // Borg tells of a program that ended too early by a traceback.
      if (!theirs.stderr.includes('Traceback')) t.is(ours.stderr, theirs.stderr, filter)
      else t.regex(ours.stderr, /filter .* failed, rc=/)
    }
  } finally {
    sandbox.close()
  }
})
