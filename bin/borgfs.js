#!/usr/bin/env node
// Answers what needs nothing loaded: --version, which clients ask before every call, and the going to the background of a mount,
// whose work is all in the process that stays.
'use strict'
const { join } = require('node:path')

const words = process.argv.slice(2)
const name = process.argv[1].split('/').pop().replace(/\.js$/, '')
const program = name === 'borg' ? 'borg' : 'borgfs'
const first = words.find(word => !['--log-json', '--info', '-v', '--verbose', '--debug', '--show-rc', '-p', '--progress', '--iec'].includes(word))
const bundle = join(__dirname, '..', 'dist', 'bundle')
if (first === '-V' || first === '--version') {
  process.stdout.write(`${program} 1.2.4\n`)
} else if (first === 'mount' && process.env.BORGFS_READY_FD === undefined && process.env.BORG_FUSE_IMPL !== 'none'
  && !words.some(word => /^(-[A-Za-z]*[fh]|--f|--h|--show-rc)/.test(word))) {
  require(join(bundle, 'background.js')).startInBackground(process.env).then(code => process.exit(code))
} else {
  require('./code-cache.js').load(join(bundle, 'main.js')).exports.main(program)
}
