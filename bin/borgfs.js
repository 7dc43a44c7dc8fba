#!/usr/bin/env node
// Started by bin/borgfs. It can be called itself as well, and then answers --version and the going to the background of a mount
// without loading more than these need.
'use strict'
const { join } = require('node:path')

const words = process.argv.slice(2)
const program = process.env.BORGFS_PROGRAM ?? (process.argv[1].endsWith('/borg') ? 'borg' : 'borgfs')
delete process.env.BORGFS_PROGRAM
// Taken away by bin/borgfs for the time that Node starts.
if (process.env.BORGFS_KEPT_CA_CERTS !== undefined) {
  process.env.NODE_EXTRA_CA_CERTS ??= process.env.BORGFS_KEPT_CA_CERTS
  delete process.env.BORGFS_KEPT_CA_CERTS
}
const inBackground = process.env.BORGFS_READY_FD !== undefined || process.env.BORGFS_READY_PID !== undefined
const first = words.find(word => !['--log-json', '--info', '-v', '--verbose', '--debug', '--show-rc', '-p', '--progress', '--iec'].includes(word))
const bundle = join(__dirname, '..', 'dist', 'bundle')
if (first === '-V' || first === '--version') {
  process.stdout.write(`${program} 1.2.4\n`)
} else if (first === 'mount' && !inBackground && process.env.BORG_FUSE_IMPL !== 'none' && !words.some(word => /^(-[A-Za-z]*[fh]|--f|--h|--show-rc)/.test(word))) {
  require(join(bundle, 'background.js')).startInBackground(process.env).then(code => process.exit(code))
} else {
  require('./code-cache.js').load(join(bundle, 'main.js')).exports.main(program)
}
