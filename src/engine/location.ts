/** Addresses of repositories and archives (commands.md §3). Text is escaped text (text.ts). */
import { resolve } from 'node:path'

export interface Location {
  readonly protocol: 'file' | 'ssh'
  readonly user?: string
  readonly host?: string
  readonly port?: number
  /** Local: as typed, made normal. */
  readonly path: string
  readonly archive: string | undefined
  /** As typed, placeholders expanded. */
  readonly text: string
}

const archivePart = String.raw`(?:::(?<archive>[^/]+))?`
// It ends at the first `::`.
const pathPart = String.raw`(?<path>(?:[^:]|:(?!:))+)`
const hostPart = String.raw`(?:(?<user>[^@:/ ]+)@)?(?<host>[^:/]+|\[[0-9a-fA-F:.]+\])`
const sshUrl = new RegExp(`^ssh://${hostPart}(?::(?<port>\\d+))?(?<path>/(?:[^:]|:(?!:))+)${archivePart}$`, 'su')
const fileUrl = new RegExp(`^file://${pathPart}${archivePart}$`, 'su')
const scpStyle = new RegExp(`^${hostPart}:(?!:)(?!//)${pathPart}${archivePart}$`, 'su')
const local = new RegExp(`^(?!:)${pathPart}${archivePart}$`, 'su')
const environmentArchive = /^::(?<archive>[^/]*)$/su

/** undefined for an invalid text. `fallback`: BORG_REPO, for texts without a repository. */
export function parseLocation(text: string, fallback?: string): Location | undefined {
  if (text === '' || environmentArchive.test(text)) {
    const archive = environmentArchive.exec(text)?.groups?.archive
    if (fallback === undefined || fallback === '') return undefined
    const repository = parseFull(fallback)
    if (!repository || repository.archive !== undefined) return undefined
    return { ...repository, archive: archive || undefined, text: archive ? `${repository.text}::${archive}` : repository.text }
  }
  return parseFull(text)
}

function parseFull(text: string): Location | undefined {
  if (text.startsWith('ssh://')) {
    const groups = sshUrl.exec(text)?.groups
    return groups && remote(groups, text, groups.path!.replace(/^\/(?=~|\.\/)/, ''))
  }
  if (text.startsWith('file://')) {
    const groups = fileUrl.exec(text)?.groups
    return groups && { protocol: 'file', path: plainNormal(groups.path!), archive: groups.archive, text }
  }
  const scp = /^[./~]/.test(text) ? undefined : scpStyle.exec(text)?.groups
  if (scp) return remote(scp, text, scp.path!)
  const groups = local.exec(text)?.groups
  if (!groups) return undefined
  return { protocol: 'file', path: plainNormal(groups.path!), archive: groups.archive, text }
}

function remote(groups: Record<string, string | undefined>, text: string, path: string): Location {
  return {
    protocol: 'ssh', ...(groups.user ? { user: groups.user } : {}), host: groups.host!, ...(groups.port ? { port: Number(groups.port) } : {}),
    path: plainNormal(path), archive: groups.archive, text,
  }
}

function plainNormal(path: string): string {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part === '..' && (parts.length > 0 ? parts.at(-1) !== '..' : path.startsWith('/'))) parts.pop()
    else parts.push(part)
  }
  return (path.startsWith('/') ? '/' : '') + parts.join('/') || '.'
}

/** As messages name the repository: absolute path, or URL. */
export function canonical(location: Location): string {
  if (location.protocol === 'file') return resolve(location.path)
  const path = location.path.startsWith('/') ? location.path : `/${location.path.startsWith('~') ? '' : './'}${location.path}`
  return `ssh://${location.user ? `${location.user}@` : ''}${location.host}${location.port === undefined ? '' : `:${location.port}`}${path}`
}
