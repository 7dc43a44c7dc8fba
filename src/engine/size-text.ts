/** Sizes as Borg writes them (output.md §11); the engine's messages have them too. */

export interface SizeOptions {
  readonly iec: boolean
  /** 2 unless told. Bytes have none. */
  readonly decimals?: 1 | 2
  /** A plus before what is more than nothing. */
  readonly sign?: boolean
}

const decimalUnits = ['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y']
const binaryUnits = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei', 'Zi', 'Yi']

/** `0 B`, `1.00 kB`, `-308.83 kB`; the unit goes up when rounding reaches the next one. */
export function formatSize(bytes: number, { iec, decimals = 2, sign = false }: SizeOptions = { iec: false }): string {
  const [base, units] = iec ? [1024, binaryUnits] as const : [1000, decimalUnits] as const
  const plus = sign && bytes > 0 ? '+' : ''
  let value = bytes
  for (const [index, unit] of units.entries()) {
    const text = index === 0 ? value.toFixed(0) : rounded(value, decimals)
    if (Math.abs(Number(text)) < base || index === units.length - 1) return `${plus}${text} ${unit}B`
    value /= base
  }
  return `${plus}${value} YB`
}

/** What lies in the middle goes to the even digit, as in Python; toFixed takes it away from zero. Of doubles only odd eighths do, or odd quarters. */
function rounded(value: number, decimals: 1 | 2): string {
  const down = (Math.abs(value) * (decimals === 1 ? 4 : 8)) % 4 === 1
  return (down ? Math.trunc(value * 10 ** decimals) / 10 ** decimals : value).toFixed(decimals)
}
