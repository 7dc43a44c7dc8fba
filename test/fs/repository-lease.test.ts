import { setTimeout as pause } from 'node:timers/promises'
import test from 'ava'
import { BorgError } from '../../src/engine/errors.js'
import { silentLog } from '../../src/engine/log.js'
import { RepositoryLease } from '../../src/fs/repository-lease.js'

class FakeRepository {
  readonly calls: string[] = []
  transaction = 1
  known = 1
  taken = false
  async acquireLock(kind: string): Promise<void> {
    if (this.taken) throw new BorgError('LockTimeout', 'Failed to create/acquire the lock (timeout).', 73)
    this.calls.push(kind)
  }
  releaseLock(): void {
    this.calls.push('release')
  }
  async refresh(): Promise<boolean> {
    const changed = this.known !== this.transaction
    this.known = this.transaction
    return changed
  }
  async lastTransaction(): Promise<number> {
    return this.transaction
  }
}

function lease(repository: FakeRepository, options: { locked?: boolean; hold?: boolean; changed?(): Promise<void> } = {}): RepositoryLease {
  return new RepositoryLease(repository, { locked: options.locked ?? false, hold: options.hold ?? false, log: silentLog, changed: options.changed ?? (async () => {}) })
}

test('reads share one lock', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  t.deepEqual(await Promise.all([made.reading(async () => 1), made.reading(async () => 2)]), [1, 2])
  t.deepEqual(repository.calls, ['shared'])
  await made.close()
  t.deepEqual(repository.calls, ['shared', 'release'])
})

test('reads go on without the lock while another client has the exclusive one', async (t) => {
  const repository = new FakeRepository()
  repository.taken = true
  t.is(await lease(repository).reading(async () => 7), 7)
  t.deepEqual(repository.calls, [])
})

test('coming back after another client committed tells of the change first', async (t) => {
  const repository = new FakeRepository()
  const events: string[] = []
  const made = lease(repository, { changed: async () => void events.push('changed') })
  repository.transaction = 5
  await made.reading(async () => void events.push('read'))
  t.deepEqual(events, ['changed', 'read'])
})

test('a change that could not be taken in is told of again', async (t) => {
  const repository = new FakeRepository()
  let broken = true, told = 0
  const made = lease(repository, { changed: async () => {
    if (broken) throw new Error('the manifest cannot be read')
    told++
  } })
  repository.transaction = 5
  await t.throwsAsync(made.check(), { message: 'the manifest cannot be read' })
  t.false(made.locked)
  broken = false
  await made.check()
  await made.check()
  t.is(told, 1)
})

test('what is known goes on being read while a change cannot be taken in, but nothing is changed', async (t) => {
  const repository = new FakeRepository()
  let broken = true
  const made = lease(repository, { changed: async () => {
    if (broken) throw new Error('the manifest cannot be read')
  } })
  repository.transaction = 5
  t.is(await made.reading(async () => 7), 7)
  await t.throwsAsync(made.exclusively(0, async () => t.fail()), { message: 'the manifest cannot be read' })
  await t.throwsAsync(made.check(), { message: 'the manifest cannot be read' })
  broken = false
  t.is(await made.exclusively(0, async () => 8), 8)
  await made.close()
})

test('a look that finds nothing new takes no lock', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  await made.reading(async () => {})
  await made.close()
  repository.calls.length = 0
  await made.check()
  t.deepEqual(repository.calls, [])
})

test('the exclusive lock is given back also when the work fails, and after a vain wait nothing is upgraded', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository, { locked: true })
  await t.throwsAsync(made.exclusively(0, async () => {
    throw new Error('disk full')
  }), { message: 'disk full' })
  t.deepEqual(repository.calls, ['exclusive', 'shared', 'release'])
  repository.taken = true
  await t.throwsAsync(made.exclusively(0, async () => {}), { name: 'LockTimeout' })
  repository.taken = false
  t.is(await made.exclusively(0, async () => 3), 3)
  await made.close()
})

test('what was done under the exclusive lock is not called failed because the shared one cannot be had afterwards', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  t.is(await made.exclusively(0, async () => {
    repository.taken = true
    return 'saved'
  }), 'saved')
  t.false(made.locked)
  t.deepEqual(repository.calls, ['exclusive', 'release'])
  repository.taken = false
  await made.reading(async () => {})
  t.deepEqual(repository.calls, ['exclusive', 'release', 'shared'])
})

test('reads are served during exclusive work', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  t.is(await made.exclusively(0, () => made.reading(async () => 4)), 4)
  await made.close()
})

test('noticing the commit of another client leaves no lock behind', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  await made.check()
  repository.calls.length = 0
  repository.transaction = 9
  await made.check()
  t.deepEqual(repository.calls, ['shared', 'release'])
})

test('with hold the lock stays until the end', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository, { locked: true, hold: true })
  await made.exclusively(0, async () => {})
  repository.transaction = 9
  await made.check()
  t.deepEqual(repository.calls, ['exclusive', 'shared'])
  await made.close()
  t.is(repository.calls.at(-1), 'release')
})

/** The lease tells its own touches of the lock from others' by time, which passes here when a test says so. */
let clockMs = 1000
performance.now = () => clockMs

async function released(repository: FakeRepository): Promise<void> {
  while (!repository.calls.includes('release')) await pause(5)
}

class WatchedRepository extends FakeRepository {
  touch: () => void = () => {}
  watchLock(touched: () => void): () => void {
    this.touch = touched
    return () => { this.touch = () => {} }
  }
}

test.serial('an idle drive lets go of the lock as soon as another client tries it', async (t) => {
  const repository = new WatchedRepository()
  const made = lease(repository)
  await made.reading(async () => {})
  // What the drive itself did comes back as well.
  repository.touch()
  await pause(50)
  t.deepEqual(repository.calls, ['shared'])
  clockMs += 200
  repository.touch()
  await released(repository)
  t.deepEqual(repository.calls, ['shared', 'release'])
  await made.close()
})

test.serial('a drive that is being read lets go when that is done', async (t) => {
  const repository = new WatchedRepository()
  const made = lease(repository)
  await made.reading(async () => {
    clockMs += 200
    repository.touch()
    await pause(50)
    t.deepEqual(repository.calls, ['shared'])
  })
  await released(repository)
  t.deepEqual(repository.calls, ['shared', 'release'])
})

test('what was done under the exclusive lock stands, whatever becomes of the lock and of a look at the repository afterwards', async (t) => {
  const repository = new FakeRepository()
  const made = lease(repository)
  const failing = async (): Promise<number> => {
    throw Object.assign(new Error('EIO'), { code: 'EIO' })
  }
  repository.releaseLock = () => {
    throw new BorgError('LockFailed', 'Failed to create/acquire the lock (full).', 72)
  }
  t.is(await made.exclusively(0, async () => {
    repository.lastTransaction = failing
    return 'committed'
  }), 'committed')
  t.is(await made.exclusively(0, async () => {
    repository.taken = true
    return 'committed again'
  }).catch((error: Error) => error.message), 'EIO', 'what was not begun fails')
})
