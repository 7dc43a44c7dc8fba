/** `-rw-r--r--` of a mode; the type letter first. */
const types: Record<number, string> = { 0o040000: 'd', 0o100000: '-', 0o120000: 'l', 0o010000: 'p', 0o020000: 'c', 0o060000: 'b', 0o140000: 's' }

export function typeLetter(mode: number): string {
  return types[mode & 0o170000] ?? '?'
}

export function modeText(mode: number): string {
  const bit = (mask: number, letter: string): string => (mode & mask ? letter : '-')
  const execute = (mask: number, special: number, lower: string, upper: string): string => (mode & special ? (mode & mask ? lower : upper) : bit(mask, 'x'))
  return typeLetter(mode) + bit(0o400, 'r') + bit(0o200, 'w') + execute(0o100, 0o4000, 's', 'S')
    + bit(0o040, 'r') + bit(0o020, 'w') + execute(0o010, 0o2000, 's', 'S') + bit(0o004, 'r') + bit(0o002, 'w') + execute(0o001, 0o1000, 't', 'T')
}
