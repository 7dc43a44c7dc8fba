/** All keys that Borg 1.x items may have, sorted (archive.md §4). */
export const itemKeys: readonly string[] = [
  'acl_access', 'acl_default', 'acl_extended', 'acl_nfs4', 'atime', 'birthtime', 'bsdflags', 'chunks', 'chunks_healthy', 'ctime', 'gid', 'group',
  'hardlink_master', 'mode', 'mtime', 'part', 'path', 'rdev', 'size', 'source', 'uid', 'user', 'xattrs',
]
