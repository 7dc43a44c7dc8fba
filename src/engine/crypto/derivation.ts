/**
 * The key that a passphrase makes (crypto.md §5). PBKDF2 takes longer than all else that a short command does: it runs on another
 * thread, and may be begun as soon as the blob and a passphrase are at hand, while the repository is still being opened.
 */
import { pbkdf2 } from 'node:crypto'
import { native } from '../native.js'
import { wipe } from './blake2b.js'

export interface DerivationInput {
  readonly passphrase: Uint8Array
  readonly salt: Uint8Array
  readonly iterations: number
}

/** Longer inputs, which are rare, are Node's. */
const maxNativeBytes = 64

/** 32 bytes; whoever asked wipes them. */
export function deriveKey(input: DerivationInput): Promise<Buffer> {
  const { passphrase, salt, iterations } = input
  const { pbkdf2: fast } = native()
  return fast && passphrase.length <= maxNativeBytes && salt.length <= maxNativeBytes ? fast(passphrase, salt, iterations) : deriveKeyByNode(input)
}

/** The same by Node, which the addon is held against. */
function deriveKeyByNode({ passphrase, salt, iterations }: DerivationInput): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    pbkdf2(passphrase, salt, iterations, 32, 'sha256', (error, key) => (error ? reject(error) : resolve(key)))
  })
}

/** At most one derivation that is under way before it is certain that it is the wanted one. */
export class Derivation {
  #begun: (DerivationInput & { readonly key: Promise<Buffer> }) | undefined

  /** A later call replaces what was begun before. The input is not to be changed until it is taken. */
  begin(input: DerivationInput): void {
    this.discard()
    const key = deriveKey(input)
    // Should nobody take it, its failure is nobody's.
    key.catch(() => undefined)
    this.#begun = { ...input, key }
  }

  /** The key of this input: the one begun if it is the same, else derived now. Each can be taken once. */
  take(input: DerivationInput): Promise<Buffer> {
    const begun = this.#begun
    if (!begun || begun.iterations !== input.iterations || !equal(begun.salt, input.salt) || !equal(begun.passphrase, input.passphrase)) return deriveKey(input)
    this.#begun = undefined
    return begun.key
  }

  /** What nobody took is wiped as soon as it is there. */
  discard(): void {
    this.#begun?.key.then(wipe, () => undefined)
    this.#begun = undefined
  }
}

/** Both are the user's own: how long this takes tells nobody anything. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
