import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { mountOptionString, prepareMountpoint } from '../../../../src/fs/fuse/kernel/attach.js'
import { mountAt, parseMount } from '../../../../src/fs/fuse/kernel/mount-table.js'
import { defaultMountOptions } from '../../../../src/fs/fuse/transport.js'
import { canMount, MountedMemory, nobody } from '../../../helpers/mount.js'

const mounted = canMount ? test.serial : test.serial.skip

function folder(t: { teardown(done: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'borgfs-attach-'))
  t.teardown(() => rmSync(path, { recursive: true }))
  return path
}

test('a mountpoint that is missing or a file is refused with Borg\'s sentence', async (t) => {
  const path = folder(t)
  writeFileSync(join(path, 'file'), '')
  for (const name of ['missing', 'file']) {
    await t.throwsAsync(prepareMountpoint(join(path, name)), { message: `${join(path, name)}: Mountpoint must be a writable directory` })
  }
})

test('a mountpoint is resolved, and may hold files', async (t) => {
  const path = folder(t)
  mkdirSync(join(path, 'real'))
  writeFileSync(join(path, 'real', 'file'), '')
  symlinkSync('real', join(path, 'link'))
  t.is(await prepareMountpoint(join(path, 'link')), join(path, 'real'))
})

test('a line of the mount table is parsed, escapes included', (t) => {
  t.deepEqual(parseMount('36 35 0:51 / /mnt/a\\040b\\134 rw,nosuid,noatime shared:1 master:2 - fuse.borgfs borg\\040fs rw,user_id=0'), {
    mountpoint: '/mnt/a b\\', device: '0:51', type: 'fuse.borgfs', source: 'borg fs', options: ['rw', 'nosuid', 'noatime', 'user_id=0'],
  })
  t.is(parseMount('36 35 0:51 / /a rw - fuse borgfs rw').mountpoint, '/a')
})

test('the option string is the kernel\'s', (t) => {
  const options = { ...defaultMountOptions, mountpoint: '/mnt' }
  t.is(mountOptionString(options, ['fd=3']), 'fd=3,rw,nosuid,nodev,default_permissions,max_read=1048576')
  t.is(mountOptionString({ ...options, readOnly: true, defaultPermissions: false, access: 'root', flags: ['noexec'] }, []), 'ro,noexec,allow_other,max_read=1048576')
})

mounted('a living mount of ours is refused as a mountpoint', async (t) => {
  const mount = await MountedMemory.start()
  t.teardown(() => mount.close())
  await t.throwsAsync(prepareMountpoint(mount.mountpoint), { message: `${mount.mountpoint}: Mountpoint must be a writable directory` })
})

mounted('the mount that a killed server left is removed and mounted anew', async (t) => {
  const killed = await MountedMemory.start({ files: { old: '' } })
  t.teardown(() => killed.close())
  await killed.sh('ls')
  await killed.kill()
  const { stderr } = await killed.run('ls', [killed.mountpoint], { cwd: '/' })
  t.regex(stderr, /Transport endpoint is not connected/)
  const again = await MountedMemory.start({ mountpoint: killed.mountpoint, files: { fresh: '' } })
  t.teardown(() => again.close())
  t.is(await again.sh('ls'), 'fresh\n')
  t.true(again.logs.some((line) => /Removed the dead mount/.test(line)))
  const table = readFileSync('/proc/self/mounts', 'utf8').split('\n').filter((line) => line.split(' ')[1] === killed.mountpoint)
  t.is(table.length, 1)
})

mounted('a mount in use is not unmounted, unless lazily', async (t) => {
  const mount = await MountedMemory.start({ files: { a: '' } })
  t.teardown(() => mount.close())
  const user = mount.run('sh', ['-c', 'echo ready > busy; read line; cat a; echo $line'], { input: '' })
  await user
  const held = mount.run('python3', ['-c', 'import sys, os\nf = open("a")\nopen("held", "w").close()\nwhile os.path.exists("held"): pass\nprint("read" + f.read())'])
  while ((await mount.run('stat', ['held'])).rc !== 0) await mount.tell({ command: 'facts' })
  const error = await t.throwsAsync(mount.unmount())
  t.regex(error!.message, /the mount is in use/)
  await mount.sh('rm held')
  t.is((await held).stdout, 'read\n')
  await mount.unmount({ lazy: true })
  await mount.exited()
  t.is(mount.end!.end, 'unmounted')
})

mounted('somebody else\'s umount ends the session too', async (t) => {
  const mount = await MountedMemory.start()
  t.teardown(() => mount.close())
  const { rc } = await mount.run('umount', [mount.mountpoint], { cwd: '/' })
  t.is(rc, 0)
  await mount.exited()
  t.deepEqual(mount.end, { end: 'unmounted', handles: 0 })
})

mounted('a connection that was aborted leaves no dead mount', async (t) => {
  const mount = await MountedMemory.start({ files: { a: '' } })
  t.teardown(() => mount.close())
  await mount.sh('ls')
  const minor = (await mount.sh('mountpoint -d .')).trim().split(':')[1]!
  // The control file system may not be mounted here; the namespace takes it away again.
  const { stderr } = await mount.run('unshare', ['-m', 'sh', '-c', `mount -t fusectl none /sys/fs/fuse/connections; echo 1 > /sys/fs/fuse/connections/${minor}/abort`], { cwd: '/' })
  t.is(stderr, '')
  await mount.exited()
  t.is(mount.end!.end, 'unmounted')
  t.is(mountAt(mount.mountpoint), undefined)
})

mounted('ro, subtype, fsname and flags reach the mount table', async (t) => {
  const mount = await MountedMemory.start({ files: { a: '' }, options: { readOnly: true, subtype: 'borgfs', fsname: 'borgfs', flags: ['nosuid', 'nodev', 'noexec', 'noatime'] } })
  t.teardown(() => mount.close())
  const [source, , type, options] = readFileSync('/proc/self/mounts', 'utf8').split('\n').map((line) => line.split(' ')).find(([, where]) => where === mount.mountpoint)!
  t.is(source, 'borgfs')
  t.is(type, 'fuse.borgfs')
  t.true(['ro', 'noexec', 'noatime', 'nosuid', 'nodev'].every((flag) => options!.split(',').includes(flag)), options)
  t.regex((await mount.run('touch', ['b'])).stderr, /Read-only file system/)
})

mounted('others see the mount only if allowed', async (t) => {
  const asNobody = ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups', 'ls']
  const closed = await MountedMemory.start({ files: { a: '' } })
  t.teardown(() => closed.close())
  t.regex((await closed.run('setpriv', [...asNobody, closed.mountpoint], { cwd: '/' })).stderr, /Permission denied/)
  const open = await MountedMemory.start({ files: { a: '' }, options: { access: 'everybody' } })
  t.teardown(() => open.close())
  t.is((await open.run('setpriv', [...asNobody, open.mountpoint], { cwd: '/' })).stdout, 'a\n')
  const onlyRoot = await MountedMemory.start({ files: { a: '' }, options: { access: 'root' }, onlyUid: 12345 })
  t.teardown(() => onlyRoot.close())
  t.is(await onlyRoot.sh('ls'), 'a\n')
  t.regex((await onlyRoot.run('setpriv', [...asNobody, onlyRoot.mountpoint], { cwd: '/' })).stderr, /Permission denied/)
})

mounted('a user mounts by fusermount3, writes, and unmounts', async (t) => {
  const mount = await MountedMemory.start({ asNobody: true, memory: { uid: nobody, gid: nobody }, files: { a: 'hello' } })
  t.teardown(() => mount.close())
  t.is(await mount.sh('id -u; cat a; echo mine > b; stat -c "%u:%g %s" b; grep -c "^borgfs .* fuse .*user_id=65534" /proc/self/mounts'), '65534\nhello65534:65534 5\n1\n')
  await mount.unmount()
  await mount.exited()
  t.deepEqual(mount.end, { end: 'unmounted', handles: 0 })
})

mounted('fusermount3\'s refusal is passed on with what to do', async (t) => {
  const error = await t.throwsAsync(MountedMemory.start({ asNobody: true, options: { access: 'everybody' } }))
  t.regex(error!.message, /allow_other.*user_allow_other.*\/etc\/fuse\.conf/s)
})
