/** Every operation by real system calls on a real mount, with entry validity and without. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { python } from "./child.ts";
import { settled, type SoloMount, startSolo } from "./solo-mount.ts";

describe.each([
  { entryValidity: true, metadataCalls: "inline" as const },
  { entryValidity: false, metadataCalls: "pool" as const },
])("entry validity $entryValidity, metadata calls $metadataCalls", (options) => {
  let solo: SoloMount;

  beforeAll(async () => {
    solo = await startSolo(options);
  });
  afterAll(async () => {
    await solo?.stop();
  });
  afterEach(async () => {
    await settled(solo);
  });

  it("creates, writes, reads, truncates and removes files", async () => {
    const output = await python(
      `
fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
assert os.write(fd, b'hello world') == 11
assert os.pread(fd, 100, 0) == b'hello world'
assert os.pread(fd, 100, 11) == b''
os.ftruncate(fd, 5)
assert os.fstat(fd).st_size == 5
os.close(fd)
try: os.open('f', os.O_CREAT | os.O_EXCL); assert False
except FileExistsError: pass
fd = os.open('f', os.O_RDONLY | os.O_CREAT); assert os.read(fd, 10) == b'hello'; os.close(fd)
fd = os.open('f', os.O_WRONLY | os.O_TRUNC); assert os.fstat(fd).st_size == 0; os.close(fd)
assert stat.S_IMODE(os.stat('f').st_mode) == 0o640
os.unlink('f')
try: os.stat('f'); assert False
except FileNotFoundError: pass
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("appends, large writes, holes, fallocate, lseek and copy_file_range", async () => {
    const output = await python(
      `
a = os.open('big', os.O_RDWR | os.O_CREAT, 0o644)
block = os.urandom(3 * 1024 * 1024 + 17)
assert os.write(a, block) == len(block)
assert os.pread(a, len(block) + 10, 0) == block
b = os.open('big', os.O_WRONLY | os.O_APPEND)
assert os.write(b, b'end') == 3
assert os.fstat(a).st_size == len(block) + 3
assert os.pread(a, 3, len(block)) == b'end'
c = os.open('holes', os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(c, b'x', 1 << 20)
assert os.lseek(c, 0, os.SEEK_DATA) == 1 << 20, os.lseek(c, 0, os.SEEK_DATA)
assert os.lseek(c, 0, os.SEEK_HOLE) == 0
assert os.lseek(c, 0, os.SEEK_END) == (1 << 20) + 1
os.posix_fallocate(c, 0, 1 << 21)
assert os.fstat(c).st_size == 1 << 21
d = os.open('copy', os.O_RDWR | os.O_CREAT, 0o644)
done = 0; os.lseek(a, 0, 0)
while done < len(block): done += os.copy_file_range(a, d, len(block) - done)
assert os.pread(d, len(block), 0) == block
try: os.pwrite(c, b'x', 1 << 60); assert False
except OSError as e: assert e.errno == errno.EFBIG, e
os.fsync(d); os.fdatasync(d)
for fd in (a, b, c, d): os.close(fd)
for name in ('big', 'holes', 'copy'): os.unlink(name)
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("directories, links, special files and rename with its flags", async () => {
    const output = await python(
      `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(a, b, flags):
  if libc.renameat2(-100, a.encode(), -100, b.encode(), flags): raise OSError(ctypes.get_errno(), a)
os.mkdir('d', 0o750); os.mkdir('d/e')
assert os.stat('d').st_nlink == 3
os.symlink('target/of/link', 'd/s'); assert os.readlink('d/s') == 'target/of/link'
os.mkfifo('d/fifo'); assert stat.S_ISFIFO(os.stat('d/fifo').st_mode)
os.mknod('d/null', 0o666 | stat.S_IFCHR, os.makedev(1, 3)); assert os.stat('d/null').st_rdev == os.makedev(1, 3)
open('d/null', 'w').write('gone')
os.mknod('d/plain', 0o600)
open('one', 'w').write('1'); open('two', 'w').write('2')
os.link('one', 'd/also'); assert os.stat('one').st_nlink == 2 and os.stat('d/also').st_ino == os.stat('one').st_ino
try: renameat2('one', 'two', 1); assert False
except FileExistsError: pass
renameat2('one', 'two', 2)
assert open('one').read() == '2' and open('two').read() == '1'
os.rename('one', 'd/e/one'); assert open('d/e/one').read() == '2'
os.rename('two', 'd/e/one'); assert open('d/e/one').read() == '1'
os.rename('d/e', 'e'); assert os.stat('d').st_nlink == 2 and os.listdir('e') == ['one']
os.link('e/one', 'e/two'); os.rename('e/one', 'e/two'); assert sorted(os.listdir('e')) == ['one', 'two']
try: os.rmdir('e'); assert False
except OSError as e: assert e.errno == errno.ENOTEMPTY
try: os.unlink('e'); assert False
except IsADirectoryError: pass
try: os.rename('nothing', 'x'); assert False
except FileNotFoundError: pass
try: os.mkdir('d'); assert False
except FileExistsError: pass
try: open('n' * 256, 'w'); assert False
except OSError as e: assert e.errno == errno.ENAMETOOLONG
open('n' * 255, 'w').close(); os.unlink('n' * 255)
os.mkdir(b'not-utf8-\\xff\\xfe'); assert b'not-utf8-\\xff\\xfe' in os.listdir(b'.'); os.rmdir(b'not-utf8-\\xff\\xfe')
for name in ('e/one', 'e/two', 'd/s', 'd/fifo', 'd/null', 'd/plain', 'd/also'): os.unlink(name)
os.rmdir('e'); os.rmdir('d')
assert os.listdir('.') == []
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("attributes, times, owners, umask, set-user-id and extended attributes", async () => {
    const output = await python(
      `
os.umask(0o027)
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o666); os.close(fd)
assert stat.S_IMODE(os.stat('f').st_mode) == 0o640
os.mkdir('d', 0o777); assert stat.S_IMODE(os.stat('d').st_mode) == 0o750
os.chmod('f', 0o604); assert stat.S_IMODE(os.stat('f').st_mode) == 0o604
os.utime('f', ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
s = os.stat('f'); assert s.st_atime_ns == 1_234_567_890_123_456_789 and s.st_mtime_ns == 987_654_321_987_654_321
os.utime('f'); assert abs(os.stat('f').st_mtime - time.time()) < 5
os.chown('f', 1234, 2345); s = os.stat('f'); assert (s.st_uid, s.st_gid) == (1234, 2345)
os.chmod('f', 0o6777); os.chmod('.', 0o777)
pid = os.fork()
if pid == 0:
  os.setgroups([]); os.setgid(999); os.setuid(999)
  fd = os.open('f', os.O_WRONLY); os.write(fd, b'x'); os.close(fd)
  os.umask(0)
  os.close(os.open('mine', os.O_CREAT | os.O_WRONLY, 0o600))
  try: os.open('d/none', os.O_CREAT); os._exit(2)
  except PermissionError: os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert stat.S_IMODE(os.stat('f').st_mode) == 0o777, oct(os.stat('f').st_mode)
assert os.stat('mine').st_uid == 999 and os.stat('mine').st_gid == 999
os.setxattr('f', 'user.a', b'value'); os.setxattr('f', 'user.b', b'x' * 3000)
assert os.getxattr('f', 'user.a') == b'value' and len(os.getxattr('f', 'user.b')) == 3000
assert sorted(os.listxattr('f')) == ['user.a', 'user.b']
try: os.setxattr('f', 'user.a', b'', os.XATTR_CREATE); assert False
except FileExistsError: pass
os.removexattr('f', 'user.a')
try: os.getxattr('f', 'user.a'); assert False
except OSError as e: assert e.errno == errno.ENODATA
v = os.statvfs('.'); assert v.f_blocks > 0 and v.f_namemax == 255
for name in ('f', 'mine'): os.unlink(name)
os.rmdir('d')
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("open files without a name, removed directories, listings while names go", async () => {
    const output = await python(
      `
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.write(fd, b'still here'); os.unlink('f')
assert os.pread(fd, 20, 0) == b'still here' and os.fstat(fd).st_nlink == 0
os.ftruncate(fd, 5); assert os.fstat(fd).st_size == 5
os.fchmod(fd, 0o600); os.write(fd, b'more'); os.close(fd)
os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.rmdir('d')
assert os.listdir(d) == []
try: os.stat('x', dir_fd=d); assert False
except FileNotFoundError: pass
try: os.open('x', os.O_CREAT, dir_fd=d); assert False
except FileNotFoundError: pass
os.close(d)
os.mkdir('many')
for i in range(2000): os.close(os.open('many/%05d' % i, os.O_CREAT))
assert sorted(os.listdir('many')) == ['%05d' % i for i in range(2000)]
seen = 0
with os.scandir('many') as it:
  for e in it: seen += e.stat().st_size == 0; os.unlink(e.path)
assert seen == 2000 and os.listdir('many') == []
os.rmdir('many')
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("shared mappings, written back and never past the end (hazard F5)", async () => {
    const output = await python(
      `
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.write(fd, b'A' * 5000)
m = mmap.mmap(fd, 5000); m[0:3] = b'xyz'; m[4999:5000] = b'!'; m.flush()
assert os.pread(fd, 3, 0) == b'xyz'
m.close(); os.close(fd)
assert os.stat('f').st_size == 5000
data = open('f', 'rb').read(); assert data[:4] == b'xyzA' and data[-2:] == b'A!'
os.unlink('f')
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });
});
