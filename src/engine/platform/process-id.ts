/** Who holds a lock: host, process, thread, as Borg writes them (locking.md). */
import { readFileSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'
import { randomBytes } from 'node:crypto'
import { native } from '../native.js'

export interface ProcessId {
  readonly host: string
  readonly pid: number
  readonly thread: number
}

let host: string | undefined

/** BORG_HOST_ID, or the name that the resolver gives with the machine's MAC address as a number. */
export function hostId(env: NodeJS.ProcessEnv = process.env): string {
  if (env.BORG_HOST_ID) return env.BORG_HOST_ID
  host ??= `${canonicalName()}@${nodeNumber()}`
  return host
}

export function thisProcess(env?: NodeJS.ProcessEnv): ProcessId {
  return { host: hostId(env), pid: process.pid, thread: 0 }
}

/** `host.pid-threadhex`: the file in an exclusive lock. */
export function lockName(id: ProcessId): string {
  return `${id.host}.${id.pid}-${id.thread.toString(16)}`
}

/** The inverse of lockName, undefined for a malformed name. */
export function parseLockName(name: string): ProcessId | undefined {
  const match = /^(.+)\.(\d+)-([0-9a-f]+)$/.exec(name)
  return match ? { host: match[1]!, pid: Number(match[2]), thread: parseInt(match[3]!, 16) } : undefined
}

/** False only if it is certain that the process is gone: another host's always counts as alive. */
export function isAlive(id: ProcessId): boolean {
  return id.host !== hostId() || isRunning(id.pid)
}

/** Whether the process of this host is there and does something: one that ended, but that its parent has not collected, does not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !isZombie(pid)
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH')
  }
}

/** A process that was killed but not yet collected holds nothing any more. */
function isZombie(pid: number): boolean {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

let boot: string | undefined

/**
 * Which start of the machine this is: what a killed process had written is there as long as it is the same, what had not been made durable is
 * gone with another. Where nobody can tell, each process has its own.
 */
export function bootId(): string {
  try {
    boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch {
    boot = randomBytes(16).toString('hex')
  }
  return boot
}

function canonicalName(): string {
  try {
    return native().canonicalHostName()
  } catch {
    return hostname()
  }
}

/** The first hardware address, as Python's uuid.getnode takes it; a random one with the multicast bit if there is none. */
function nodeNumber(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    const mac = addresses?.find(address => !address.internal && address.family === 'IPv4')?.mac
    if (mac && mac !== '00:00:00:00:00:00') return BigInt(`0x${mac.replaceAll(':', '')}`).toString()
  }
  const random = randomBytes(6)
  random[0]! |= 1
  return random.readUIntBE(0, 6).toString()
}
