// Runs a bundle of dist/bundle with the code that V8 made of it when it was built (scripts/warm-code.cjs): compiling it anew takes
// longer than most commands. Another Node than the one that built it does not take that code, and compiles as ever.
'use strict'
const { readFileSync } = require('node:fs')
const Module = require('node:module')
const { dirname } = require('node:path')
const vm = require('node:vm')

// A short command's survivors are few: sharing them out among threads takes longer than copying them, where the other cores are busy.
require('node:v8').setFlagsFromString('--no-parallel-scavenge')
// bin/borgfs gives new space a size, which counts once, at the start. The code that V8 made is for the flags that there were when it was made.
require('node:v8').setFlagsFromString('--max-semi-space-size=0')

exports.load = file => {
  // It is ASCII, and as such needs no look at each byte.
  const source = Module.wrap(readFileSync(file, 'latin1'))
  let cachedData
  try {
    cachedData = readFileSync(`${file}.code`)
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
