// Runs a bundle of dist/bundle with the code that V8 made of it when it was built (scripts/warm-code.cjs): compiling it anew takes
// longer than most commands. Another Node than the one that built it does not take that code, and compiles as ever. All of the prepared
// code is read, so there is some for each kind of work (`kind`), of what that runs and no more.
'use strict'
const { readFileSync } = require('node:fs')
const Module = require('node:module')
const { dirname } = require('node:path')
const vm = require('node:vm')

exports.codeFile = (file, kind) => `${file}.${kind}.code`

// bin/borgfs gives new space a size for some commands, which counts once, at the start. The code that V8 made is for the flags that there were
// when it was made.
if (process.execArgv.some(word => word.startsWith('--max-semi-space-size'))) require('node:v8').setFlagsFromString('--max-semi-space-size=0')

exports.load = (file, kind) => {
  // It is ASCII, and as such needs no look at each byte; it is wrapped already, and so is not copied.
  const source = readFileSync(file, 'latin1')
  let cachedData
  try {
    cachedData = readFileSync(exports.codeFile(file, kind))
  } catch {
    // Never made: nothing but time is lost.
  }
  const script = new vm.Script(source, { filename: file, cachedData })
  const module = new Module(file)
  module.filename = file
  module.paths = Module._nodeModulePaths(dirname(file))
  script.runInThisContext()(module.exports, Module.createRequire(file), module, file, dirname(file))
  return { script, exports: module.exports }
}
