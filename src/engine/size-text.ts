/** Sizes as Borg writes them (output.md §11); the engine's messages have them too. */

export interface SizeOptions {
  readonly iec: boolean
}

const decimalUnits = ['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y']
const binaryUnits = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei', 'Zi', 'Yi']

/** `0 B`, `1.00 kB`, `-308.83 kB`; the unit goes up when rounding reaches the next one. */
export function formatSize(bytes: number, options: SizeOptions = { iec: false }): string {
  const [base, units] = options.iec ? [1024, binaryUnits] as const : [1000, decimalUnits] as const
  let value = bytes
  for (const [index, unit] of units.entries()) {
    const text = index === 0 ? value.toFixed(0) : twoDecimals(value)
    if (Math.abs(Number(text)) < base || index === units.length - 1) return `${text} ${unit}B`
    value /= base
  }
  return `${value} YB`
}

/** What lies in the middle goes to the even digit, as in Python; toFixed takes it away from zero. Of doubles only odd eighths do. */
function twoDecimals(value: number): string {
  const down = (Math.abs(value) * 8) % 4 === 1
  return (down ? Math.trunc(value * 100) / 100 : value).toFixed(2)
}
