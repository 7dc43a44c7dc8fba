/** `debug dump-archive-items` and `debug dump-archive` (commands.md §10): the metadata of an archive as it is stored. */
import { writeFileSync } from 'node:fs'
import { ArchiveReader } from '../../../engine/archive/archive-reader.js'
import { decodeValues } from '../../../engine/archive/item-stream.js'
import { IntegrityError } from '../../../engine/errors.js'
import { chunkId, idHex } from '../../../engine/ids.js'
import { type MsgValue, unpackMap } from '../../../engine/msgpack.js'
import { escapedText, bytesOf } from '../../../engine/text.js'
import type { Command } from '../../command.js'
import { archiveName } from '../../context.js'
import { dumpJson } from '../../output/dump-json.js'
import { AnswerStream } from '../../output/answer-file.js'
import { scalarJson } from '../../output/log.js'
import { print } from '../../output/stdout.js'

export const debugDumpArchiveItems: Command = async context => {
  const location = context.location('archive')
  const { manifest, objects, repository } = await context.open(location, 'shared', 'unchecked')
  const archive = await ArchiveReader.open(manifest.get(archiveName(location.archive!)), repository, objects)
  for (const [index, id] of archive.metadata.items.entries()) {
    const name = `${String(index).padStart(6, '0')}_${idHex(id)}.items`
    const plain = await objects.parse(id, await repository.get(id))
    print(`Dumping ${name}\n`)
    writeFileSync(name, plain)
  }
  print('Done.\n')
}

export const debugDumpArchive: Command = async context => {
  const location = context.location('archive')
  const { manifest, objects, repository } = await context.open(location, 'shared', 'unchecked')
  const info = manifest.get(archiveName(location.archive!))
  const stored = unpackMap(await objects.parse(info.id, await repository.get(info.id)))
  const entry = new Map<string, MsgValue>([['id', info.id], ['time', bytesOf(info.time)]])
  const ids = stored.get('items')
  if (!Array.isArray(ids) || !ids.every(id => Buffer.isBuffer(id) && id.length === 32)) throw new IntegrityError('the metadata of the archive has no list of items')
  // An archive of a million items makes gigabytes of text: nothing is kept but the item in hand.
  const out = new AnswerStream(context.positional('path')[0]!)
  try {
    out.write(`{\n    "_name": ${scalarJson(escapedText(bytesOf(info.name)))},\n    "_manifest_entry":\n    ${dumpJson(entry, '    ')},\n    "_meta":\n    ${dumpJson(stored, '    ')},\n    "_items": [\n`)
    let first = true
    for await (const value of decodeValues(chunks(ids as Buffer[]))) {
      if (!(value instanceof Map)) throw new IntegrityError('the stream of items has something that is no map')
      out.write(`${first ? '' : ',\n'}    ${dumpJson(value, '    ')}`)
      first = false
    }
    out.write('\n    ]\n}\n')
    out.finish()
  } finally {
    out.close()
  }

  async function* chunks(all: readonly Buffer[]): AsyncGenerator<Buffer> {
    for (const id of all.map(chunkId)) yield await objects.parse(id, await repository.get(id))
  }
}
