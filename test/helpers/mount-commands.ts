/** What a test can tell the process that serves its mount. */
import type { KernelNotices } from '../../src/fs/core.js'
import { MemoryFs, type MemoryNode } from './memory-fs.js'
import type { MountChildSettings } from './mount.js'

/** `path` is a name in the root unless said otherwise. */
export type MountCommand =
  | { readonly command: 'facts' }
  /** Answers the reads that were put off. */
  | { readonly command: 'release' }
  /** Changes content behind the kernel's back. */
  | { readonly command: 'replace'; readonly name: string; readonly content: string }
  | { readonly command: 'remove'; readonly name: string }
  | { readonly command: 'invalidateInode'; readonly name: string }
  | { readonly command: 'invalidateEntry'; readonly name: string }
  | { readonly command: 'store'; readonly name: string; readonly offset: number; readonly content: string }

export interface MountFacts {
  readonly counts: Record<string, number>
  readonly nodes: number
  readonly handles: number
  readonly waiting: number
  readonly ticks: number
}

export function prefill(fs: MemoryFs, { files = {}, manyEntries = 0 }: MountChildSettings): void {
  for (const [name, content] of Object.entries(files)) fs.add(fs.root, name, Buffer.from(content))
  if (manyEntries === 0) return
  const many = fs.addDirectory(fs.root, 'many')
  for (let number = 0; number < manyEntries; number++) fs.add(many, `entry-${number}`, Buffer.from(String(number)))
}

export function obey(fs: MemoryFs, notices: KernelNotices, message: unknown, { ticks }: { ticks: number }): { done: MountFacts } {
  const command = message as MountCommand
  const node = (name: string): MemoryNode => fs.root.children!.get(Buffer.from(name).toString('latin1'))!.node
  switch (command.command) {
    case 'facts': break
    case 'release':
      for (const answer of fs.waiting.splice(0)) answer()
      break
    case 'replace': {
      const { pages } = node(command.name)
      pages.clear()
      const page = Buffer.alloc(4096)
      page.write(command.content)
      pages.set(0, page)
      break
    }
    case 'remove':
      fs.root.children!.delete(command.name)
      break
    case 'invalidateInode':
      notices.invalidateInode(node(command.name).ino)
      break
    case 'invalidateEntry':
      notices.invalidateEntry(1, Buffer.from(command.name))
      break
    case 'store':
      notices.store(node(command.name).ino, command.offset, Buffer.from(command.content))
      break
  }
  return { done: { counts: { ...fs.counts }, nodes: fs.nodeCount, handles: fs.handleCount, waiting: fs.waiting.length, ticks } }
}
