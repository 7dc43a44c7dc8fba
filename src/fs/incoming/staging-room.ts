/**
 * Room that a staging folder keeps for a full disk: saving what is staged makes room, but needs a little first, and so does the lock of the next mount.
 * A small file that anybody may remove who needs its room; while something is staged it is made anew.
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { BorgError, errnoOf, saysNoRoom } from '../../engine/errors.js'
import { files } from '../../engine/platform/files.js'

const roomName = 'room'
const roomBytes = 64 << 10

/** Makes the file unless it is there. Without room for it there is none: that is told by whatever needs room. */
export function keepRoom(folder: string): void {
  const path = join(folder, roomName)
  if (existsSync(path)) return
  try {
    const fd = files.open(path, 'w', 0o600)
    try {
      // Not zeros: some file systems keep those in no room at all.
      files.writeAll(fd, randomBytes(roomBytes))
    } finally {
      files.close(fd)
    }
  } catch {
    giveRoom(folder)
  }
}

/** Runs `work`, and once more with the room that the folder kept if the disk is full. What it did until then must be repeatable. */
export function withRoom<T>(folder: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!isFull(error) || !giveRoom(folder)) throw error
    return work()
  }
}

/** The same for what comes later. */
export async function withRoomLater<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isFull(error) || !giveRoom(folder)) throw error
    return work()
  }
}

function isFull(error: unknown): boolean {
  return saysNoRoom(errnoOf(error instanceof BorgError ? error.cause : error))
}

/** False if there was nothing to give. */
export function giveRoom(folder: string): boolean {
  try {
    files.remove(join(folder, roomName))
    return true
  } catch {
    return false
  }
}
