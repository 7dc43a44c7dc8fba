/** Brings a folder from one recorded tree to another under processes that have its files open: what is unlinked stays readable for them. */
import { appendFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Tree } from './disk-model.js'

export function play(root: string, from: Tree, to: Tree): void {
  for (const path of [...from.keys()].reverse()) if (!to.has(path)) rmSync(join(root, path), { recursive: true, force: true })
  for (const [path, bytes] of to) {
    const before = from.get(path)
    if (bytes === undefined) {
      if (!from.has(path)) mkdirSync(join(root, path))
    } else if (before === undefined) writeFileSync(join(root, path), bytes)
    else if (before === bytes || before.equals(bytes)) continue
    else if (bytes.subarray(0, before.length).equals(before)) appendFileSync(join(root, path), bytes.subarray(before.length))
    else {
      // Another file under the same name.
      writeFileSync(join(root, `${path}.player`), bytes)
      renameSync(join(root, `${path}.player`), join(root, path))
    }
  }
}
