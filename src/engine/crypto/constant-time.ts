import { timingSafeEqual } from 'node:crypto'

/** Whether two byte strings are equal, in a time that does not tell where they differ. */
export function equalInConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}
