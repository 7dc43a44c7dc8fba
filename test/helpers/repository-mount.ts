/**
 * Serves a repository read-only at a mountpoint, put together from the drive's rooms without a command line. Started as a process:
 * node repository-mount.js REPOSITORY MOUNTPOINT OPTIONS(JSON). Prints `ready`; ends when unmounted.
 */
import { MessageChannel, Worker } from 'node:worker_threads'
import { placesOf } from '../../src/engine/platform/places.js'
import { Passphrases } from '../../src/engine/crypto/passphrase.js'
import { native } from '../../src/engine/native.js'
import { openRepository } from '../../src/engine/operations/open.js'
import { LocalRepository } from '../../src/engine/repository/local-repository.js'
import { Workers } from '../../src/engine/store/workers.js'
import type { MountView, ToEngine } from '../../src/fs/engine-port.js'
import { attach, prepareMountpoint } from '../../src/fs/fuse/kernel/attach.js'
import { defaultMountOptions } from '../../src/fs/fuse/transport.js'
import { MountService } from '../../src/fs/mount-service.js'
import { RepositorySource } from '../../src/fs/repository-source.js'

export interface RepositoryMountOptions {
  readonly archive?: string
  readonly numericIds?: boolean
  readonly cacheBytes?: number
  readonly allowDamagedFiles?: boolean
  readonly refreshMs?: number
}

async function main(path: string, mountpoint: string, options: RepositoryMountOptions): Promise<void> {
  const log = { write: (level: string, topic: string, message: string) => void (level !== 'debug' && process.stderr.write(`${level} ${topic}: ${message}\n`)) }
  const repository = await LocalRepository.open(path, { lock: 'shared', lockWaitMs: 1000, log })
  const refuse = { ask: async () => undefined, say: (line: string) => void process.stderr.write(`${line}\n`), confirm: async () => true }
  const opened = await openRepository(repository, { places: placesOf(), passphrases: new Passphrases(process.env, refuse), questions: refuse, operation: 'read' })
  const workers = new Workers({ key: opened.key })
  const uid = process.getuid!(), gid = process.getgid!()
  const mountTimeNs = BigInt(Date.now()) * 1_000_000n
  const source: RepositorySource = new RepositorySource(opened, workers, {
    uid, gid, timeNs: mountTimeNs, numericIds: options.numericIds ?? true, umask: 0, showParts: false, log,
    ...(options.archive !== undefined && { choose: (archives) => archives.filter((each) => each.name === options.archive) }),
  }, () => service.lease.check())
  const wakeFd = native().eventFd()
  const { port1, port2 } = new MessageChannel()
  const service: MountService = new MountService({
    source, repository, locked: true, holdLock: false, refreshMs: options.refreshMs ?? 5000, lockWaitMs: 1000, log,
    channel: {
      post(message, transfer) {
        port1.postMessage(message, transfer as ArrayBuffer[] | undefined ?? [])
        native().signalEventFd(wakeFd)
      },
    },
  })
  port1.on('message', (message: ToEngine) => service.receive(message))
  const attachment = await attach({ ...defaultMountOptions, readOnly: true, mountpoint: await prepareMountpoint(mountpoint, log) })
  const view: MountView = {
    kind: options.archive === undefined ? 'repository' : 'archive', archives: source.archives(), uid, gid, umask: 0, mountTimeNs,
    cacheBytes: options.cacheBytes ?? 256 * 1024 * 1024, allowDamagedFiles: options.allowDamagedFiles ?? false,
  }
  const thread = new Worker(new URL('./repository-mount-thread.js', import.meta.url), { workerData: { fd: attachment.fd, wakeFd, port: port2, view }, transferList: [port2] })
  thread.once('message', () => void (async () => {
    attachment.close()
    await service.close()
    await workers.close()
    await repository.close()
    port1.close()
  })())
  thread.once('error', (error) => {
    console.error(error)
    process.exit(2)
  })
  process.once('SIGTERM', () => void attachment.unmount({ lazy: true }))
  process.stdout.write('ready\n')
}

await main(process.argv[2]!, process.argv[3]!, JSON.parse(process.argv[4] ?? '{}') as RepositoryMountOptions)
