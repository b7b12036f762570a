/** Which inode a file is, as a peer that has seen it would name it. */
import fs from "node:fs";
import { HANDLE_BUFFER_BYTES, nativeAddon } from "../../../native/index.ts";
import { fileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";

const O_PATH = 0o10000000;

export function idOf(file: string, fileSystem: string): FileId {
  const native = nativeAddon();
  const fd = native.open(file, O_PATH, 0);
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  const result = native.sync.handleOf(fd, handle);
  fs.closeSync(fd);
  if (result < 0) throw new Error(`name_to_handle_at of ${file}: ${-result}`);
  return fileHandleFormat(handle, fileSystem).decode(handle);
}
