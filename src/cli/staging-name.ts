/** In the cache folder of a repository: what waits in a drive to be saved (incoming.md). The only thing there that nobody can make anew. */
export const stagingName = 'staging'
