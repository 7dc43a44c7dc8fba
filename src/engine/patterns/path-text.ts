/** Lexical path editing as Borg does it on matching and storing (patterns.md §2, archive.md §5). Paths are escaped text. */

/** Collapses `//`, `/./`, `x/..` like POSIX normpath; empty becomes `.`. */
export function normalPath(path: string): string {
  if (path === '') return '.'
  // Exactly two leading slashes stay two.
  const root = path.startsWith('/') ? (path.startsWith('//') && !path.startsWith('///') ? '//' : '/') : ''
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part === '..' && (parts.length > 0 ? parts.at(-1) !== '..' : root !== '')) parts.pop()
    else parts.push(part)
  }
  return root + parts.join('/') || '.'
}

/** As an archive stores it: relative, without leading runs of `/` and `../`; nothing left becomes `.`. */
export function storedPath(normal: string): string {
  return normal.replace(/^(?:(?:\.\.)?\/+)+/, '') || '.'
}

export function withoutLeadingSlashes(path: string): string {
  return path.replace(/^\/+/, '')
}
