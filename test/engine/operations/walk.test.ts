import test from 'ava'
import { rmSync, writeFileSync } from 'node:fs'
import { walk, type WalkOptions } from '../../../src/engine/operations/walk.js'
import { Matcher } from '../../../src/engine/patterns/matcher.js'
import { Sandbox } from '../../helpers/sandbox.js'

const everything: WalkOptions = {
  matcher: new Matcher([]), oneFileSystem: false, excludeNodump: false, excludeCaches: false, excludeIfPresent: [], keepExcludeTags: false, noXattrs: false, noAcls: false, noFlags: false, skip: new Set(),
}

test('a tag that goes between being found and being kept is a failure of its own, and the walk goes on', async t => {
  const sandbox = new Sandbox('walk')
  try {
    const [first, second] = [sandbox.mkdir('first'), sandbox.mkdir('second')]
    writeFileSync(`${first}/tag`, '')
    writeFileSync(`${second}/file`, '')
    const seen: string[] = []
    for await (const run of walk([Buffer.from(first), Buffer.from(second)], { ...everything, excludeIfPresent: ['tag'], keepExcludeTags: true })) {
      for (const step of run) {
        seen.push(`${step.kind} ${step.path.toString().slice(sandbox.folder.length)}${step.kind === 'failed' ? ` ${step.failure.operation} ${step.failure.code}` : ''}`)
        rmSync(`${first}/tag`, { force: true })
      }
    }
    t.deepEqual(seen, [
      'object /first', 'failed /first/tag stat ENOENT', 'excluded /first',
      'object /second', 'object /second/file', 'left /second',
    ])
  } finally {
    sandbox.close()
  }
})
