/** `debug id-hash`, `get-obj`, `put-obj`, `delete-obj`, `refcount-obj` (commands.md §10): single objects. */
import { readFileSync } from 'node:fs'
import { ClientCache } from '../../../engine/cache/client-cache.js'
import { idHex } from '../../../engine/ids.js'
import { ObjectNotFound } from '../../../engine/repository/errors.js'
import { Workers } from '../../../engine/store/workers.js'
import type { Command } from '../../command.js'
import { writeAnswer } from '../../output/answer-file.js'
import { syncListener } from '../../output/progress.js'
import { print } from '../../output/stdout.js'
import { parseId } from './objects.js'

export const debugIdHash: Command = async context => {
  const { key } = await context.open(context.location('repository'), 'shared', 'unchecked')
  print(`${idHex(key.idHash(readFileSync(context.positional('path')[0]!)))}\n`)
}

export const debugGetObj: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'shared')
  const hex = context.positional('id')[0]!
  const id = parseId(hex)
  if (typeof id === 'string') {
    print(`object id ${hex} is invalid [${id}].\n`)
    return context.exit.force(2)
  }
  if (!repository.has(id)) {
    print(`object ${hex} not found.\n`)
    return context.exit.force(2)
  }
  writeAnswer(context.positional('path')[0]!, await repository.get(id))
  print(`object ${hex} fetched.\n`)
}

export const debugPutObj: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'exclusive')
  const object = readFileSync(context.positional('path')[0]!)
  const hex = context.positional('id')[0]!
  const id = parseId(hex)
  if (typeof id === 'string') {
    print(`object id ${hex} is invalid [${id}].\n`)
    return context.exit.force(2)
  }
  await repository.transaction(tx => tx.put(id, object))
  print(`object ${hex} put.\n`)
}

export const debugDeleteObj: Command = async context => {
  const repository = await context.openLocal(context.location('repository'), 'exclusive')
  const said: string[] = []
  await repository.transaction(async tx => {
    for (const hex of context.positional('ids')) {
      const id = parseId(hex)
      if (typeof id === 'string') {
        said.push(`object id ${hex} is invalid.\n`)
        continue
      }
      try {
        await tx.delete(id)
        said.push(`object ${hex} deleted.\n`)
      } catch (error) {
        if (!(error instanceof ObjectNotFound)) throw error
        said.push(`object ${hex} not found.\n`)
      }
    }
  })
  print(`${said.join('')}Done.\n`)
}

export const debugRefcountObj: Command = async context => {
  const opened = await context.open(context.location('repository'), 'exclusive', 'unchecked')
  const cache = await ClientCache.open(opened, { places: context.places, log: context.log, lockWaitMs: context.lockWaitMs, env: context.env })
  context.atEnd(() => cache.close())
  const workers = new Workers({ key: opened.key })
  context.atEnd(() => workers.close())
  const index = await cache.sync(workers, syncListener(context))
  for (const hex of context.positional('ids')) {
    const id = parseId(hex)
    if (typeof id === 'string') print(`object id ${hex} is invalid.\n`)
    else {
      const chunk = index.get(id)
      print(chunk ? `object ${hex} has ${chunk.refcount} referrers [info from chunks cache].\n` : `object ${hex} not found [info from chunks cache].\n`)
    }
  }
}
