/** What the lower of the kill model has to have beside, and what is not asked of it. */
export class KillModelRest {
  readonly hasAcls = false;
  readonly keeps = true;

  isAbsent(): boolean {
    return false;
  }
  knows(): boolean {
    return false;
  }
  made(): void {
    // Nothing is kept here.
  }
  madeFile(): void {
    // Nothing is kept here.
  }
  close(): void {
    // The handles stay.
  }
  fetch(): null {
    return null;
  }
  prefetch(): Promise<void> {
    return Promise.resolve();
  }

  // What the model does not ask.
  lookupMany(): never {
    throw new Error("lookupMany");
  }
  byNumber(): never {
    throw new Error("byNumber");
  }
  parentOf(): never {
    throw new Error("parentOf");
  }
  pathOf(): never {
    throw new Error("pathOf");
  }
  getattrMany(): never {
    throw new Error("getattrMany");
  }
  readlink(): never {
    throw new Error("readlink");
  }
  tmpfile(): never {
    throw new Error("tmpfile");
  }
  mknod(): never {
    throw new Error("mknod");
  }
  symlink(): never {
    throw new Error("symlink");
  }
  opendir(): never {
    throw new Error("opendir");
  }
  readdir(): never {
    throw new Error("readdir");
  }
  statfs(): never {
    throw new Error("statfs");
  }
  listxattr(): never {
    throw new Error("listxattr");
  }
  fsync(): never {
    throw new Error("fsync");
  }
  fsyncdir(): never {
    throw new Error("fsyncdir");
  }
  syncfs(): never {
    throw new Error("syncfs");
  }
}
