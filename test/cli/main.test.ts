/** What holds for every command, whatever it does. */
import test from 'ava'
import { spawnSync } from 'node:child_process'

test('a command that waits for what never comes is a failure, not a success', t => {
  const [all, main] = ['cli/commands/all.js', 'cli/main.js'].map(path => new URL(`../../src/${path}`, import.meta.url).href)
  const script = `import { commands } from '${all}'
    import { main } from '${main}'
    commands.list = async () => () => new Promise(() => undefined)
    await main('borg')`
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script, 'borg', 'list', 'nowhere'], { encoding: 'utf8' })
  t.is(status, 2, stderr)
  t.regex(stderr, /never comes/)
})
