/** Command lines that people give in one piece: BORG_PASSCOMMAND, --tar-filter. */

/** Splits like a POSIX shell splits words, without expansions; undefined if a quote is open at the end. */
export function shellWords(text: string): string[] | undefined {
  const words: string[] = []
  let word: string | undefined
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!
    if (/\s/.test(character)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (character === "'") {
      const end = text.indexOf("'", at + 1)
      if (end < 0) return undefined
      word = (word ?? '') + text.slice(at + 1, end)
      at = end
    } else if (character === '"') {
      word ??= ''
      for (at++; text[at] !== '"'; at++) {
        if (at >= text.length) return undefined
        if (text[at] === '\\' && /["\\$`\n]/.test(text[at + 1] ?? '')) at++
        word += text[at]
      }
    } else if (character === '\\') {
      if (++at >= text.length) return undefined
      word = (word ?? '') + text[at]
    } else word = (word ?? '') + character
  }
  if (word !== undefined) words.push(word)
  return words
}
