/**
 * Keys of a staging folder: what waits there is encrypted whenever the repository is. They are derived from the repository's key and a salt in
 * the folder, so that there is no secret on disk. Not the repository's own keys and nonces: those have one counter, which only the holder of
 * the exclusive lock may move.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { fileKeyBytes } from '../../engine/crypto/file-cipher.js'
import type { Key, KeyMaterial } from '../../engine/crypto/key.js'
import { keyTypeOfMode } from '../../engine/crypto/key-types.js'
import { BorgError } from '../../engine/errors.js'
import { saveFile, saveFileLater } from '../../engine/platform/save-file.js'

/** Clonable between threads. */
export interface StagingKeys {
  /** Of spool files: FileCipher. */
  readonly contents: KeyObject
  /** Of journal records: envelopes as the repository's objects. */
  readonly records: KeyMaterial
  /** Of records that are sealed from now on: for takeNonces. */
  readonly nonces: UnusedNonces
  /** Of the mark of a commit under way: sealSmall. */
  readonly marks: KeyObject
}

export interface UnusedNonces {
  readonly first: bigint
  readonly path: string
  /** The file that says that they are used; undefined if it says so already. */
  readonly file: Uint8Array | undefined
}

const fileName = 'keys'
/*
 * The file, twice, so that one damaged sector is not the end: magic 16, salt 32, check 16 (derived: tells another repository's folder),
 * uint32le generation (one more at each start that seals a record: the upper bits of nonces), uint32le CRC-32 of all before.
 */
const magic = Buffer.from('borgfs staging 1')
const saltBytes = 32, checkBytes = 16, generationAt = 64, crcAt = 68, copyBytes = 4096
const nonceBitsOfOneStart = 40n

interface Facts {
  readonly salt: Buffer
  readonly check: Buffer
  readonly generation: number
}

/**
 * The keys of several folders, which are there and locked; made at the first time, and durable then. Undefined where the repository is not
 * encrypted. BorgError if a folder belongs to another repository.
 */
export async function openStagingKeys(folders: readonly string[], key: Key): Promise<(StagingKeys | undefined)[]> {
  return Promise.all(folders.map(async folder => {
    const next = nextKeys(folder, key)
    if (!next?.made) return next?.keys
    const { nonces } = next.keys
    await saveFileLater(nonces.path, nonces.file!, { mode: 0o600 })
    return { ...next.keys, nonces: { ...nonces, file: undefined } }
  }))
}

/**
 * The first nonce of the records that this process seals; all that follow are its own. To be called once, by who seals them, before the first one: no later start
 * gets these when it returns. A drive that is only read waits for no disk.
 */
export function takeNonces({ nonces: { first, path, file } }: StagingKeys): bigint {
  if (file) saveFile(path, file, { mode: 0o600 })
  return first
}

function nextKeys(folder: string, key: Key): { readonly keys: StagingKeys; readonly made: boolean } | undefined {
  if (!key.encrypted) return undefined
  const path = join(folder, fileName)
  const known = read(path)
  const salt = known?.salt ?? randomBytes(saltBytes)
  const derive = (purpose: string, length: number): KeyObject => key.derive(salt, `staging-${purpose}`, length)!
  const check = derive('check', checkBytes).export()
  if (known && !timingSafeEqual(check, known.check)) throw new BorgError('Error', `${folder} holds what was staged for another repository. Choose another folder with -o staging=DIR.`)
  const generation = (known?.generation ?? 0) + 1
  const copy = Buffer.alloc(copyBytes)
  Buffer.concat([magic, salt, check]).copy(copy)
  copy.writeUInt32LE(generation, generationAt)
  copy.writeUInt32LE(crc32(copy.subarray(0, crcAt)), crcAt)
  const { type, mode } = keyTypeOfMode('repokey')
  const keys: StagingKeys = {
    contents: derive('contents', fileKeyBytes), marks: derive('marks', 32),
    nonces: { first: BigInt(generation) << nonceBitsOfOneStart, path, file: Buffer.concat([copy, copy]) },
    records: {
      type, mode, chunkSeed: 0, tamRequired: true, logicallyUnencrypted: false,
      encKey: derive('records', 32), encHmacKey: derive('records-mac', 32), idKey: derive('records-id', 32),
    },
  }
  return { keys, made: !known }
}

function read(path: string): Facts | undefined {
  if (!existsSync(path)) return undefined
  const bytes = readFileSync(path)
  let best: Facts | undefined
  for (const start of [0, copyBytes]) {
    const copy = bytes.subarray(start, start + copyBytes)
    if (copy.length < copyBytes || !copy.subarray(0, magic.length).equals(magic) || crc32(copy.subarray(0, crcAt)) !== copy.readUInt32LE(crcAt)) continue
    const generation = copy.readUInt32LE(generationAt)
    const saltAt = magic.length, checkAt = saltAt + saltBytes
    if (!best || generation > best.generation) best = { salt: copy.subarray(saltAt, checkAt), check: copy.subarray(checkAt, checkAt + checkBytes), generation }
  }
  return best
}

const nonceBytes = 12, tagBytes = 16

/** AES-256-GCM with a random nonce, for the few small things: nonce, tag, ciphertext. */
export function sealSmall(key: KeyObject, plain: Uint8Array): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
}

/** Throws if it is not what sealSmall made. */
export function openSmall(key: KeyObject, sealed: Uint8Array): Buffer {
  const cipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes })
  cipher.setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes))
  return Buffer.concat([cipher.update(sealed.subarray(nonceBytes + tagBytes)), cipher.final()])
}
