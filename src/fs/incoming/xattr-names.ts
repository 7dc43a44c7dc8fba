/** Which names of extended attributes there are, as the file systems of Linux have it. */
import { Errno } from '../types.js'
import { accessAclName, defaultAclName } from './acl.js'

const namespaces = ['user.', 'trusted.', 'security.']

/** Why a byte-string name can be no xattr of a file; undefined if it can. */
export function refusedXattrName(name: string): Errno | undefined {
  if (name === accessAclName || name === defaultAclName) return undefined
  const namespace = namespaces.find(prefix => name.startsWith(prefix))
  if (namespace === undefined) return Errno.EOPNOTSUPP
  return name === namespace ? Errno.EINVAL : undefined
}
