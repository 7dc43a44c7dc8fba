import test from 'ava'
import { defaultMountOptions, type MountOptions, withFuseOption } from '../../../src/fs/fuse/transport.js'

const options: MountOptions = { ...defaultMountOptions, mountpoint: '/mnt' }

for (const [word, change] of Object.entries({
  allow_other: { access: 'everybody' }, allow_root: { access: 'root' }, ro: { readOnly: true }, rw: {}, 'fsname=other': { fsname: 'other' },
  'subtype=borgfs': { subtype: 'borgfs' }, dev: { flags: ['nosuid', 'dev'] }, nodev: { flags: ['nosuid', 'nodev'] }, suid: { flags: ['nodev', 'suid'] },
  noexec: { flags: ['nosuid', 'nodev', 'noexec'] }, noatime: { flags: ['nosuid', 'nodev', 'noatime'] }, _netdev: {}, noauto: {}, 'x-systemd.automount': {},
  'x-systemd.idle-timeout=60': {}, debug: {}, 'max_read=4096': {}, big_writes: {},
})) {
  test(`-o ${word} is applied`, (t) => t.deepEqual(withFuseOption(options, word), { ...options, ...change } as MountOptions))
}

for (const word of ['nonsense', 'fsname', 'umask=022', 'constructor', 'toString', 'fd=3', 'user_id=0', '']) {
  test(`-o ${word} is unknown to FUSE`, (t) => t.is(withFuseOption(options, word), undefined))
}
