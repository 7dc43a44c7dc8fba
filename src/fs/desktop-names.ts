/**
 * Names that desktops leave in whatever folder they look at, on their own account: trashes, indexes, views. Where a name would become an archive,
 * in the root, `incoming/` and `live/`, they cannot be made (incoming.md §6): a look at incoming/ through a share must not leave an
 * archive of a .DS_Store, and what cannot be moved to a trash is deleted, after a question. Inside staged trees they are files as any other.
 */
const trash = /^\.Trash(-|$)/
const leftovers = new Set([
  // macOS
  '.DS_Store', '._.DS_Store', '.Trashes', '._.Trashes', '.Spotlight-V100', '.fseventsd', '.TemporaryItems', '._.TemporaryItems', '.apdisk', '._.apdisk',
  // Windows
  'Thumbs.db', '$RECYCLE.BIN', 'System Volume Information',
])

/** `name`: a byte string. */
export function isLeftBehind(name: string): boolean {
  return trash.test(name) || leftovers.has(name)
}
