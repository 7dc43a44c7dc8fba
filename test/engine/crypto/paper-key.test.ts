import test from 'ava'
import { paperKey, PaperKeyReader } from '../../../src/engine/crypto/paper-key.js'
import { fixtureJson } from '../../helpers/fixtures.js'

const { keys } = fixtureJson<{ keys: { blob_hex?: string; key_export_paper_text?: string; repository_id: string }[] }>('vectors', 'crypto-keyblobs.json')
const printed = keys.flatMap(({ blob_hex, key_export_paper_text, repository_id }) => (blob_hex && key_export_paper_text
  ? [{ blob: Buffer.from(blob_hex, 'hex'), text: key_export_paper_text, id: Buffer.from(repository_id, 'hex') }] : []))

test('paper keys are those that Borg printed', t => {
  t.true(printed.length >= 4)
  for (const { blob, text, id } of printed) t.is(paperKey(blob, id), text)
})

test('typed lines give the key again, however they are spaced', t => {
  for (const { blob, text, id } of printed) {
    const reader = new PaperKeyReader(id)
    const lines = text.trimEnd().split('\n').slice(3)
    for (const [index, line] of lines.entries()) {
      const [prompt, typed] = [line.slice(0, 4), line.slice(4)]
      t.is(reader.prompt, prompt)
      const taken = reader.take(index % 2 ? typed.replaceAll(' ', '').toUpperCase() : typed)
      if (index < lines.length - 1) t.is(taken.kind, 'next')
      else t.deepEqual(taken, { kind: 'complete', blob })
    }
  }
})

test('a mistyped line is asked for again and told why', t => {
  const { text, id } = printed[0]!
  const [idLine, first, second] = text.split('\n').slice(3, 6).map(line => line.slice(4)) as [string, string, string]
  const reader = new PaperKeyReader(id)
  const why = (typed: string): string => {
    const taken = reader.take(typed)
    return taken.kind === 'again' ? taken.why : taken.kind
  }
  t.is(why('hello'), "each line must contain exactly one '-', try again")
  t.is(why('1 - 2 - 3'), "each line must contain exactly one '-', try again")
  t.is(why(''), "each line must contain exactly one '-', try again")
  t.is(why('1/2 - 33'), "the id line must contain exactly three '/', try again")
  t.is(why(idLine.replace('/', '1/')), 'line checksum did not match, try same line again')
  t.is(why(idLine), 'next')
  t.is(why('zz - 00'), "only characters 0-9 and a-f and '-' are valid, try again")
  t.is(why('abc - 00'), "only characters 0-9 and a-f and '-' are valid, try again")
  t.is(why(second), 'line checksum did not match, try line 1 again')
  t.is(reader.prompt, ' 1: ')
  t.is(why(first), 'next')
  t.is(reader.prompt, ' 2: ')
  const other = new PaperKeyReader(Buffer.alloc(32))
  t.is(other.take(idLine).kind, 'other repository')
})
