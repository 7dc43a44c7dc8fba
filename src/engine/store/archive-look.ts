/** How archive metadata is told from other plaintexts when no manifest names it (archive.md §3). */

/** Keys that the metadata of an archive may begin with: all but `tam`. */
const archiveKeys = [
  'chunker_params', 'cmdline', 'comment', 'csize', 'csize_parts', 'cwd', 'hostname', 'items', 'name', 'nfiles', 'nfiles_parts', 'recreate_args', 'recreate_cmdline',
  'recreate_partial_chunks', 'recreate_source_id', 'size', 'size_parts', 'time', 'time_end', 'username', 'version',
].map(key => Buffer.from(String.fromCharCode(0xa0 + key.length) + key, 'latin1'))

const versionEntry = Buffer.from('\xa7version\x01', 'latin1')
const cmdline = Buffer.from('cmdline')

/** True for all archive metadata and for next to nothing else; decoding it decides. Costs nothing for other plaintexts. */
export function looksLikeArchive(plain: Buffer): boolean {
  const lead = plain[0] ?? 0
  const at = (lead & 0xf0) === 0x80 ? 1 : lead === 0xde ? 3 : 0
  if (at === 0) return false
  return archiveKeys.some(key => plain.length > at + key.length && key.compare(plain, at, at + key.length) === 0) && plain.includes(cmdline) && plain.includes(versionEntry)
}
