/** `key export --qr-html`: one page to be printed, with the key as QR code and as paper key. Nothing in it is loaded from elsewhere. */
import { encodeQR } from 'qr'

/** `text`: the exported key, which the code holds exactly; `paper`: what is typed in where no scanner is at hand. */
export function keyPage(text: string, paper: string): string {
  // As much correction as fits: paper ages.
  const code = encodeQR(text, 'svg', { ecc: 'medium' })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Key backup of a Borg repository</title>
<style>
body { font-family: sans-serif; margin: 1.5em; max-width: 48em; }
#qr svg { width: 10cm; height: 10cm; display: block; }
pre, textarea { font-family: monospace; font-size: 9pt; }
textarea { width: 100%; border: 1px solid #888; }
@media print { textarea, .screen { display: none; } }
</style>
</head>
<body>
<h1>Key backup of a Borg repository</h1>
<p>Whoever has this page and the passphrase can read the repository. Keep it where neither fire nor guests find it.</p>
<div id="qr">${code}</div>
<p>The code holds the text of the key. Save what a scanner reads as a file and give it to <code>borg key import</code>.</p>
<pre id="typein">${escaped(paper)}</pre>
<p class="screen">The same text to be copied:</p>
<textarea id="keyfile" rows="14" cols="73" readonly>${escaped(text)}</textarea>
</body>
</html>
`
}

function escaped(text: string): string {
  return text.replace(/[&<>]/g, character => `&#${character.charCodeAt(0)};`)
}
