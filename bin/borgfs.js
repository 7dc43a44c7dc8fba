#!/usr/bin/env node
// Answers --version before anything is loaded: clients ask it before every call.
const words = process.argv.slice(2)
const name = process.argv[1].split('/').pop().replace(/\.js$/, '')
const program = name === 'borg' ? 'borg' : 'borgfs'
const first = words.find(word => !['--log-json', '--info', '-v', '--verbose', '--debug', '--show-rc', '-p', '--progress', '--iec'].includes(word))
if (first === '-V' || first === '--version') {
  process.stdout.write(`${program} 1.2.4\n`)
} else {
  const { main } = await import('../dist/src/cli/main.js')
  await main(program)
}
