/** Linux's device numbers, which may have more than 32 bits, as makedev(3), major(3) and minor(3) have them. */

export function deviceNumber(major: number, minor: number): number {
  const [high, low] = [BigInt(major), BigInt(minor)]
  return Number(((high & 0xfffn) << 8n) | ((high & ~0xfffn) << 32n) | (low & 0xffn) | ((low & ~0xffn) << 12n))
}

export function majorOf(device: number): number {
  const bits = BigInt(device)
  return Number(((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn))
}

export function minorOf(device: number): number {
  const bits = BigInt(device)
  return Number((bits & 0xffn) | ((bits >> 12n) & 0xffffff00n))
}
