/** What the kernel is told late or unasked. */
import test from 'ava'
import { canMount, MountedMemory } from '../../../helpers/mount.js'
import { eventually } from '../../../helpers/sandbox.js'

const mounted = canMount ? test.serial : test.serial.skip

let shared: MountedMemory | undefined
test.before(async () => {
  // Nothing expires by itself, so what changes was told.
  if (canMount) shared = await MountedMemory.start({
    memory: { odd: true, keepCache: true, entryTtlMs: 1e9, attrTtlMs: 1e9 },
    files: { late: 'late bytes', content: 'old content', name: 'here', stored: '-'.repeat(8192), 'throws-on-read': 'x', killed: '' },
  })
})
test.after.always(async () => shared?.close())

/** Until something waits for its answer. */
async function untilWaiting(mount: MountedMemory): Promise<void> {
  while ((await mount.tell({ command: 'facts' })).waiting === 0) await new Promise((resolve) => setTimeout(resolve, 5))
}

mounted('a read that is put off is answered later, and other requests go on meanwhile', async (t) => {
  const mount = shared!
  const reading = mount.sh('cat late')
  await untilWaiting(mount)
  t.is(await mount.sh('cat content'), 'old content')
  await mount.tell({ command: 'release' })
  t.is(await reading, 'late bytes')
})

mounted('a listing that is put off is answered later', async (t) => {
  const mount = shared!
  await mount.sh('mkdir late-directory; touch late-directory/a late-directory/b')
  const listing = mount.sh('ls late-directory; ls -l late-directory | wc -l')
  let done = false
  const end = listing.then(() => (done = true))
  while (!done) {
    await mount.tell({ command: 'release' })
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await end
  t.is(await listing, 'a\nb\n3\n')
})

mounted('a process that is killed does not wait for a late answer', async (t) => {
  const mount = shared!
  await mount.sh('mkdir -p late-directory')
  const killing = mount.python(`
import signal
child = os.fork()
if child == 0:
  os.listdir('late-directory'); os._exit(0)
while not os.path.exists('kill-now'): pass
os.kill(child, signal.SIGKILL)
print(os.WTERMSIG(os.waitpid(child, 0)[1]))`)
  await untilWaiting(mount)
  await mount.sh('touch kill-now')
  t.is(await killing, '9\n')
  await mount.tell({ command: 'release' })
  t.is(await mount.sh('cat content'), 'old content')
})

mounted('an exception while reading is EIO', async (t) => {
  const mount = shared!
  t.regex((await mount.run('cat', ['throws-on-read'])).stderr, /Input\/output error/)
  // The process that serves tells it on another way than the kernel gives the answer.
  await t.notThrowsAsync(eventually('the log tells of it', () => mount.logs.some((line) => line.includes('thrown while reading'))))
})

mounted('content stays cached until the kernel is told to forget it', async (t) => {
  const mount = shared!
  t.is(await mount.sh('cat content'), 'old content')
  await mount.tell({ command: 'replace', name: 'content', content: 'new content' })
  t.is(await mount.sh('cat content'), 'old content')
  await mount.tell({ command: 'invalidateInode', name: 'content' })
  while ((await mount.sh('cat content')) === 'old content') await mount.tell({ command: 'facts' })
  t.is(await mount.sh('cat content'), 'new content')
})

mounted('a name stays known until the kernel is told to forget it', async (t) => {
  const mount = shared!
  await mount.sh('stat name')
  await mount.tell({ command: 'remove', name: 'name' })
  t.is((await mount.run('stat', ['name'])).rc, 0)
  await mount.tell({ command: 'invalidateEntry', name: 'name' })
  while ((await mount.run('stat', ['name'])).rc === 0) await mount.tell({ command: 'facts' })
  t.is((await mount.run('stat', ['name'])).rc, 1)
})

mounted('bytes stored into the page cache are read without asking', async (t) => {
  const mount = shared!
  await mount.sh('stat stored')
  await mount.tell({ command: 'store', name: 'stored', offset: 0, content: '+'.repeat(8192) })
  // The notice is written by a thread of its own; until it arrived, the page is not to be read.
  await mount.sh('until fincore -nb -o PAGES stored | grep -q 2; do :; done')
  const before = (await mount.tell({ command: 'facts' })).counts.read!
  t.is(await mount.sh('cat stored'), '+'.repeat(8192))
  t.is((await mount.tell({ command: 'facts' })).counts.read, before)
})

mounted('notices while the same directory and file are in use stop nobody', async (t) => {
  const mount = shared!
  await mount.sh('mkdir -p busy; for i in $(seq 50); do head -c 100000 /dev/zero > busy/$i; done')
  let done = false
  const working = mount.sh('for round in $(seq 20); do ls -l busy > /dev/null; cat busy/* content > /dev/null; touch busy/new; rm busy/new; done').finally(() => (done = true))
  while (!done) {
    await mount.tell({ command: 'invalidateInode', name: 'busy' })
    await mount.tell({ command: 'invalidateEntry', name: 'busy' })
    await mount.tell({ command: 'invalidateInode', name: 'content' })
    await mount.tell({ command: 'store', name: 'content', offset: 0, content: 'x' })
  }
  await working
  t.is((await mount.sh('ls busy | wc -l')), '50\n')
})

mounted('the tick comes also while nothing is asked', async (t) => {
  const mount = shared!
  const before = (await mount.tell({ command: 'facts' })).ticks
  while ((await mount.tell({ command: 'facts' })).ticks < before + 3) await new Promise((resolve) => setTimeout(resolve, 5))
  t.pass()
})
