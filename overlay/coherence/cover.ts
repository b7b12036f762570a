/** Placeholder of the state behind each inode; filled in by the lock cache. */
export interface Cover {
  readonly resource: string;
}
