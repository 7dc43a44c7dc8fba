/** The deterministic inputs of chunker-generators.json. */
import { createCipheriv, createHash } from 'node:crypto'

export function generate(gen: string, seed: number, length: number): Buffer {
  switch (gen) {
    case 'zeros': return Buffer.alloc(length)
    case 'ones': return Buffer.alloc(length, 255)
    case 'lcg': return lcg(seed, length)
    case 'lcg4': return lcg(seed, length).map(byte => byte & 3) as Buffer
    case 'period32': return repeated(lcg(seed, 32), length)
    case 'period1000': return repeated(lcg(seed, 1000), length)
    case 'ctr': return createCipheriv('aes-256-ctr', createHash('sha256').update(`borgfs-vector-${seed}`).digest(), Buffer.alloc(16)).update(Buffer.alloc(length))
    case 'holes': {
      const bytes = generate('ctr', seed, length)
      for (let offset = 0; offset < length; offset++) if (Math.floor(offset / 5000) % 3 === 1) bytes[offset] = 0
      return bytes
    }
  }
  throw new Error(`no generator ${gen}`)
}

function lcg(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let x = seed >>> 0
  for (let index = 0; index < length; index++) {
    x = (Math.imul(1103515245, x) + 12345) >>> 0
    bytes[index] = (x >>> 16) & 255
  }
  return bytes
}

function repeated(unit: Buffer, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at += unit.length) unit.copy(bytes, at)
  return bytes
}
