/** Users and groups by number and by name, each asked of the system once. */
import { native } from '../native.js'

const userNames = new Map<number, Buffer | undefined>()
const groupNames = new Map<number, Buffer | undefined>()
const userIds = new Map<string, number | undefined>()
const groupIds = new Map<string, number | undefined>()

const maxRemembered = 1 << 16

function remembered<K, V>(memory: Map<K, V>, key: K, ask: () => V): V {
  if (memory.has(key)) return memory.get(key)!
  const value = ask()
  // An archive can name as many users as it has items.
  if (memory.size >= maxRemembered) memory.clear()
  memory.set(key, value)
  return value
}

export function userNameOf(uid: number): Buffer | undefined {
  return remembered(userNames, uid, () => native().userName(uid))
}

export function groupNameOf(gid: number): Buffer | undefined {
  return remembered(groupNames, gid, () => native().groupName(gid))
}

export function userIdOf(name: Uint8Array): number | undefined {
  const bytes = Buffer.from(name)
  return remembered(userIds, bytes.toString('latin1'), () => (bytes.includes(0) ? undefined : native().userId(bytes)))
}

export function groupIdOf(name: Uint8Array): number | undefined {
  const bytes = Buffer.from(name)
  return remembered(groupIds, bytes.toString('latin1'), () => (bytes.includes(0) ? undefined : native().groupId(bytes)))
}
