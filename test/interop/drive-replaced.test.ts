/** An archive that takes the place of the one made before: what went with that one is still what staged files are made of. */
import test from 'ava'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { canMount } from '../helpers/mount.js'
import { eventually, haveBorg, Sandbox } from '../helpers/sandbox.js'

const run = canMount && haveBorg ? test.serial : test.serial.skip
if (!canMount || !haveBorg) console.error('SKIPPED aloud: test/interop/drive-replaced needs to mount and the real borg')

// Nothing by itself, nothing read from the cache of decoded chunks.
const args = ['-o', 'settle=3600,linger=3600,cache=1M,allow_delete']

run('files that are changed after each save, and clones of what another tree had, stay whole when archives are replaced, through kill -9', async t => {
  const sandbox = new Sandbox('replaced')
  try {
    sandbox.borg(['init', '-e', 'repokey', 'repo'])
    let mountpoint = sandbox.mount('repo', { args })
    const commit = (tree: string): void => void sandbox.sh(`setfattr -n user.borgfs.commit -v "" mnt/incoming/${tree}`)
    const same = (copy: string, path: string): void => {
      t.is(sandbox.sh(`cmp ${copy} mnt/${path} && echo same`).stdout, 'same\n', path)
    }
    const change = (at: number): void => {
      for (const file of ['source', 'mnt/incoming/a/changed']) sandbox.sh(`printf changed | dd of=${file} bs=1 seek=${at} conv=notrunc status=none`)
    }
    sandbox.sh('head -c 9000000 /dev/urandom > source; head -c 7000000 /dev/urandom > other; mkdir mnt/incoming/a mnt/incoming/b; cp source mnt/incoming/a/changed; cp other mnt/incoming/a/moved')
    commit('a')
    for (const at of [1_000_000, 1_100_000, 6_000_000]) {
      change(at)
      commit('a')
    }
    same('source', 'incoming/a/changed')
    // Clones: of a staged file, and of an archive that is about to be replaced.
    const [archive] = readdirSync(mountpoint).filter(name => name.startsWith('a-'))
    sandbox.sh(`cp mnt/incoming/a/moved mnt/incoming/b/moved; cp mnt/${archive}/moved mnt/incoming/b/copied; ln mnt/${archive}/moved mnt/incoming/b/linked; rm mnt/incoming/a/moved`)
    commit('a')
    await eventually('the archive is another one', () => !existsSync(join(mountpoint, archive!, 'moved')))
    for (const name of ['moved', 'copied', 'linked']) same('other', `incoming/b/${name}`)
    await sandbox.killMount()
    sandbox.borg(['break-lock', 'repo'])
    mountpoint = sandbox.mount('repo', { args })
    for (const name of ['moved', 'copied', 'linked']) same('other', `incoming/b/${name}`)
    sandbox.sh('printf more >> other; printf more >> mnt/incoming/b/moved')
    commit('b')
    // What is deleted by way of the drive is not what was copied in it.
    const [last] = readdirSync(mountpoint).filter(name => name.startsWith('a-'))
    sandbox.sh(`mkdir mnt/incoming/c; cp mnt/${last}/changed mnt/incoming/c/changed; rmdir mnt/${last}`)
    same('source', 'incoming/c/changed')
    commit('c')
    sandbox.unmount(mountpoint)
    sandbox.assertSound()
    const out = sandbox.mkdir('out')
    for (const name of sandbox.archives()) sandbox.borg(['extract', `../repo::${name}`], { cwd: out })
    t.is(sandbox.sh('cmp out/changed source; cmp out/moved other; cmp out/copied out/linked').stdout, '')
  } finally {
    sandbox.close()
  }
})
