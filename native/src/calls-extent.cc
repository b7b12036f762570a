// Where a file lies on its device (FIEMAP), its flags (chattr), whole blocks read and written without the page cache, the growth of a
// mounted file system, and the end of one that must not write any more.
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "call.h"

namespace coverlay {

namespace {

// What every device and file system accepts for O_DIRECT.
constexpr size_t kDirectAlign = 4096;
// Blocks of a few sectors are meant, not data.
constexpr size_t kDirectBytesMax = 1u << 20;
// EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h) and XFS_IOC_GOINGDOWN (fs/xfs/libxfs/xfs_fs.h) are one number, and so are their flags: without
// writing the log.
constexpr unsigned long kShutDown = _IOR('X', 125, uint32_t);
constexpr uint32_t kNoLogFlush = 2;
// fs/ext4/ext4.h: the wanted number of blocks.
constexpr unsigned long kResizeExt4 = _IOW('f', 16, uint64_t);

// fs/xfs/libxfs/xfs_fs.h. XFS_IOC_FSGEOMETRY_V1 has all that is asked for here.
struct XfsGeometry {
  uint32_t blockBytes;
  uint32_t realtimeExtentBlocks;
  uint32_t groupBlocks;
  uint32_t groupCount;
  uint32_t logBlocks;
  uint32_t sectorBytes;
  uint32_t inodeBytes;
  uint32_t inodePercentMax;
  uint64_t dataBlocks;
  uint64_t realtimeBlocks;
  uint64_t realtimeExtents;
  uint64_t logStart;
  uint8_t uuid[16];
  uint32_t stripeUnit;
  uint32_t stripeWidth;
  int32_t version;
  uint32_t flags;
  uint32_t logSectorBytes;
  uint32_t realtimeSectorBytes;
  uint32_t directoryBlockBytes;
};
static_assert(sizeof(XfsGeometry) == 112, "as struct xfs_fsop_geom_v1");
struct XfsGrowth {
  uint64_t newBlocks;
  uint32_t inodePercentMax;
};
static_assert(sizeof(XfsGrowth) == 16, "as struct xfs_growfs_data");
struct XfsBulkstat {
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t flags;
  int64_t times[4];
  uint32_t generation;
  uint8_t rest[124];
};
static_assert(sizeof(XfsBulkstat) == 192, "as struct xfs_bulkstat");
struct XfsBulkstatRequest {
  uint64_t ino;
  uint32_t flags;
  uint32_t room;
  uint32_t found;
  uint32_t group;
  uint64_t reserved[5];
  XfsBulkstat one;
};
static_assert(sizeof(XfsBulkstatRequest) == 256, "as struct xfs_bulkstat_req with room for one");
// Its size in the number is that of the head alone (a flexible array follows).
constexpr unsigned long kXfsBulkstat = _IOC(_IOC_READ, 'X', 127, 64);
constexpr unsigned long kXfsGeometry = _IOR('X', 100, XfsGeometry);
constexpr unsigned long kXfsGrow = _IOW('X', 110, XfsGrowth);

int fd(const Call& call) { return static_cast<int>(call.number[0]); }

int64_t fileFlags(const Call& call) {
  // The kernel reads and writes an int, whatever the name of the ioctl says.
  int flags = 0;
  return ::ioctl(fd(call), FS_IOC_GETFLAGS, &flags) != 0 ? -errno : flags;
}

int64_t setFileFlags(const Call& call) {
  int flags = static_cast<int>(call.number[1]);
  return resultOf(::ioctl(fd(call), FS_IOC_SETFLAGS, &flags));
}

// struct fsxattr, as the kernel reads and writes it.
int64_t fsxattr(const Call& call) {
  if (call.dataBytes != sizeof(struct fsxattr)) return -EINVAL;
  struct fsxattr value;
  if (::ioctl(fd(call), FS_IOC_FSGETXATTR, &value) != 0) return -errno;
  std::memcpy(call.data, &value, sizeof value);
  return 0;
}

int64_t setFsxattr(const Call& call) {
  if (call.dataBytes != sizeof(struct fsxattr)) return -EINVAL;
  struct fsxattr value;
  std::memcpy(&value, call.data, sizeof value);
  return resultOf(::ioctl(fd(call), FS_IOC_FSSETXATTR, &value));
}

// struct fiemap and as many struct fiemap_extent as fit, into the buffer as the kernel writes them.
int64_t extents(const Call& call) {
  if (call.dataBytes < sizeof(fiemap) + sizeof(fiemap_extent)) return -EINVAL;
  std::unique_ptr<uint64_t[]> room(new uint64_t[call.dataBytes / 8 + 1]());
  auto* map = reinterpret_cast<fiemap*>(room.get());
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_flags = FIEMAP_FLAG_SYNC;
  map->fm_extent_count = static_cast<uint32_t>((call.dataBytes - sizeof(fiemap)) / sizeof(fiemap_extent));
  if (::ioctl(fd(call), FS_IOC_FIEMAP, map) != 0) return -errno;
  memcpy(call.data, map, call.dataBytes);
  return map->fm_mapped_extents;
}

struct Free {
  void operator()(void* memory) const { ::free(memory); }
};

std::unique_ptr<void, Free> alignedRoom(size_t bytes) {
  void* memory = nullptr;
  if (bytes == 0 || bytes > kDirectBytesMax || ::posix_memalign(&memory, kDirectAlign, bytes) != 0) return nullptr;
  return std::unique_ptr<void, Free>(memory);
}

int64_t readDirect(const Call& call) {
  auto room = alignedRoom(call.dataBytes);
  if (room == nullptr) return -EINVAL;
  ssize_t bytes = ::pread(fd(call), room.get(), call.dataBytes, call.number[1]);
  if (bytes < 0) return -errno;
  memcpy(call.data, room.get(), static_cast<size_t>(bytes));
  return bytes;
}

int64_t writeDirect(const Call& call) {
  auto room = alignedRoom(call.dataBytes);
  if (room == nullptr) return -EINVAL;
  memcpy(room.get(), call.data, call.dataBytes);
  return resultOf(::pwrite(fd(call), room.get(), call.dataBytes, call.number[1]));
}

int64_t shutDown(const Call& call) {
  uint32_t how = kNoLogFlush;
  return resultOf(::ioctl(fd(call), kShutDown, &how));
}

// The kernel has the whole size of ext4 in its superblock alone: statfs(2) leaves out what is its own.
int64_t growExt4(const Call& call) {
  struct statfs seen;
  if (::fstatfs(fd(call), &seen) != 0) return -errno;
  uint64_t blocks = static_cast<uint64_t>(call.number[1]) / static_cast<uint64_t>(seen.f_bsize);
  return resultOf(::ioctl(fd(call), kResizeExt4, &blocks));
}

int64_t bytesXfs(const Call& call) {
  XfsGeometry seen;
  if (::ioctl(fd(call), kXfsGeometry, &seen) != 0) return -errno;
  return static_cast<int64_t>(seen.dataBlocks * seen.blockBytes);
}

int64_t growXfs(const Call& call) {
  XfsGeometry seen;
  if (::ioctl(fd(call), kXfsGeometry, &seen) != 0) return -errno;
  XfsGrowth wanted = {static_cast<uint64_t>(call.number[1]) / seen.blockBytes, seen.inodePercentMax};
  return resultOf(::ioctl(fd(call), kXfsGrow, &wanted));
}

// The first inode that is in use from that number on: of Linux 5.3.
int64_t generationXfs(const Call& call) {
  XfsBulkstatRequest request = {};
  request.ino = static_cast<uint64_t>(call.number[1]);
  request.room = 1;
  if (::ioctl(fd(call), kXfsBulkstat, &request) != 0) return -errno;
  if (request.found != 1 || request.one.ino != static_cast<uint64_t>(call.number[1])) return -ENOENT;
  return request.one.generation;
}

// XFS logs a label and then writes its superblock in its place at once (fs/xfs/xfs_ioctl.c, xfs_ioc_setlabel), also one that is the same.
int64_t placeSuperblockXfs(const Call& call) {
  char label[FSLABEL_MAX];
  if (::ioctl(fd(call), FS_IOC_GETFSLABEL, label) != 0) return -errno;
  return resultOf(::ioctl(fd(call), FS_IOC_SETFSLABEL, label));
}

const CallRow kRows[] = {
    {"fileFlags", "d", fileFlags},
    {"setFileFlags", "di", setFileFlags},
    {"fsxattr", "db", fsxattr},
    {"setFsxattr", "db", setFsxattr},
    {"extents", "db", extents},
    {"readDirect", "dbo", readDirect},
    {"writeDirect", "dbz", writeDirect},
    {"shutDown", "d", shutDown},
    {"growExt4", "do", growExt4},
    {"growXfs", "do", growXfs},
    {"bytesXfs", "d", bytesXfs},
    {"generationXfs", "di", generationXfs},
    {"placeSuperblockXfs", "d", placeSuperblockXfs},
};

}  // namespace

CallRows extentCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
