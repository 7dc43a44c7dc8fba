#!/usr/bin/env node
// Answers what needs nothing loaded: --version, which clients ask before every call, and the going to the background of a mount,
// whose work is all in the process that stays.
const words = process.argv.slice(2)
const name = process.argv[1].split('/').pop().replace(/\.js$/, '')
const program = name === 'borg' ? 'borg' : 'borgfs'
const first = words.find(word => !['--log-json', '--info', '-v', '--verbose', '--debug', '--show-rc', '-p', '--progress', '--iec'].includes(word))
if (first === '-V' || first === '--version') {
  process.stdout.write(`${program} 1.2.4\n`)
} else if (first === 'mount' && process.env.BORGFS_READY_FD === undefined && process.env.BORG_FUSE_IMPL !== 'none'
  && !words.some(word => /^(-[A-Za-z]*[fh]|--f|--h|--show-rc)/.test(word))) {
  const { startInBackground } = await import('../dist/bundle/background.js')
  process.exit(await startInBackground(process.env))
} else {
  const { main } = await import('../dist/bundle/main.js')
  await main(program)
}
