/** Being filled in. */
export interface ArchiveTreeData { readonly rowCount: number }
