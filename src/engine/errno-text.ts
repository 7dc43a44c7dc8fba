/** A failed call on a file as Borg words it: `[Errno 13] Permission denied`. */
const texts: Record<number, string> = {
  1: 'Operation not permitted', 2: 'No such file or directory', 5: 'Input/output error', 6: 'No such device or address', 13: 'Permission denied', 16: 'Device or resource busy',
  17: 'File exists', 18: 'Invalid cross-device link', 20: 'Not a directory', 21: 'Is a directory', 23: 'Too many open files in system', 22: 'Invalid argument', 24: 'Too many open files', 26: 'Text file busy', 27: 'File too large', 28: 'No space left on device',
  30: 'Read-only file system', 31: 'Too many links', 36: 'File name too long', 39: 'Directory not empty', 40: 'Too many levels of symbolic links', 95: 'Operation not supported', 107: 'Transport endpoint is not connected', 116: 'Stale file handle', 122: 'Disk quota exceeded',
}

export function errorText(error: { readonly code: string; readonly errno: number }): string {
  return `[Errno ${Math.abs(error.errno)}] ${texts[Math.abs(error.errno)] ?? error.code}`
}
