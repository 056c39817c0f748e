// Linux: memfd_create with seals, files of tmpfs under /dev/shm, /proc for the life of processes.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "base/bits.hpp"
#include "os/errno.hpp"
#include "os/segment_door.hpp"
#include "os/kernel_pages.hpp"
#include "os/shared_memory.hpp"
#include "os/text_file.hpp"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22   // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif
#ifndef HUGETLBFS_MAGIC
#define HUGETLBFS_MAGIC 0x958458f6UL
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

namespace rtpool::os {
namespace {

constexpr const char* k_folder = "/dev/shm";
constexpr const char* k_prefix = "rtpool.";
constexpr std::size_t k_small_page = 4096;
constexpr std::size_t k_stat_block = 512;  // what st_blocks counts in
constexpr int k_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

struct Path {
  char text[sizeof "/dev/shm/rtpool." + k_segment_name_length];
};

int path_of(const char* name, Path* out) noexcept {
  if (!is_segment_name(name)) return EINVAL;
  std::snprintf(out->text, sizeof out->text, "%s/%s%s", k_folder, k_prefix, name);
  return 0;
}

// The link target of a descriptor that holds segment `id`, as /proc shows it.
struct MemoryFileName {
  char text[64];
  explicit MemoryFileName(const SegmentId& id, const char* prefix) noexcept {
    int used = std::snprintf(text, sizeof text, "%srtpool-", prefix);
    for (const std::uint8_t byte : id.bytes) {
      used += std::snprintf(text + used, sizeof text - static_cast<std::size_t>(used), "%02x", byte);
    }
  }
};

struct ProcessLine {
  char state = '?';
  std::uint64_t start = 0;
  std::uint64_t image = 0;
};

// /proc/PID/stat; false when there is no such process. The command in parentheses may hold anything, also ')'.
bool read_process(std::int32_t pid, ProcessLine* out) noexcept {
  char path[64];
  char text[2048];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (!read_text_file(path, text, sizeof text)) return false;
  const char* at = std::strrchr(text, ')');
  if (at == nullptr || at[1] != ' ') return false;
  out->state = at[2];
  at += 3;
  constexpr int k_state_field = 3;
  constexpr int k_start_field = 22;
  constexpr int k_stack_field = 28;
  for (int field = k_state_field + 1; field <= k_stack_field; ++field) {
    char* end = nullptr;
    const std::uint64_t value = std::strtoull(at, &end, 10);
    if (end == at) return false;
    if (field == k_start_field) out->start = value;
    if (field == k_stack_field) out->image = value;
    at = end;
  }
  return true;
}

std::uint64_t pid_namespace() noexcept {
  struct stat found{};
  return ::stat("/proc/self/ns/pid", &found) == 0 ? static_cast<std::uint64_t>(found.st_ino) : 0;
}

// A file that may have transparent huge pages, or pages of a kernel with larger ones, has larger blocks as well.
std::size_t explicit_page(int fd, const struct stat& file) noexcept {
  if (file.st_blksize <= static_cast<blksize_t>(k_small_page)) return k_small_page;
  struct statfs system{};
  if (::fstatfs(fd, &system) != 0 || static_cast<unsigned long>(system.f_type) != HUGETLBFS_MAGIC) return k_small_page;
  return static_cast<std::size_t>(file.st_blksize);
}

class LinuxSharedMemory final : public SharedMemory {
 public:
  std::size_t page_size() noexcept override { return os::page_size(); }

  int create_nameless(const SegmentId& id, std::size_t bytes, std::size_t page, int* fd) noexcept override {
    const KeepErrno keep;
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (page > k_small_page) flags |= MFD_HUGETLB | (base::log2_floor(page) << MFD_HUGE_SHIFT);
    const int made = ::memfd_create(MemoryFileName(id, "").text, flags);
    if (made < 0) return errno;
    int error = size_to(made, bytes);
    if (error == 0 && ::fcntl(made, F_ADD_SEALS, k_seals) != 0) error = errno;
    return hand_over(made, error, fd);
  }

  int create_named(std::size_t bytes, int* fd) noexcept override {
    const KeepErrno keep;
    const int made = ::open(k_folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (made < 0) return errno;
    int error = result(::fchmod(made, 0600));
    if (error == 0) error = size_to(made, bytes);
    return hand_over(made, error, fd);
  }

  int publish(int fd, const char* name) noexcept override {
    const KeepErrno keep;
    Path path;
    if (const int error = path_of(name, &path); error != 0) return error;
    char link[64];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return result(::linkat(AT_FDCWD, link, AT_FDCWD, path.text, AT_SYMLINK_FOLLOW));
  }

  int open_named(const char* name, int* fd) noexcept override {
    const KeepErrno keep;
    Path path;
    if (const int error = path_of(name, &path); error != 0) return error;
    // O_NONBLOCK: a fifo somebody put there must not hold us up.
    const int opened = ::open(path.text, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (opened < 0) return errno;
    *fd = opened;
    return 0;
  }

  int unlink_named(const char* name) noexcept override {
    const KeepErrno keep;
    Path path;
    if (const int error = path_of(name, &path); error != 0) return error;
    return result(::unlink(path.text));
  }

  int for_each_name(bool (*visit)(void*, const char*), void* context) noexcept override {
    const KeepErrno keep;
    DIR* folder = ::opendir(k_folder);
    if (folder == nullptr) return errno;
    const std::size_t prefix = std::strlen(k_prefix);
    while (const dirent* entry = ::readdir(folder)) {
      if (std::strncmp(entry->d_name, k_prefix, prefix) != 0 || !is_segment_name(entry->d_name + prefix)) continue;
      if (!visit(context, entry->d_name + prefix)) break;
    }
    ::closedir(folder);
    return 0;
  }

  int open_of_process(const SegmentId& id, std::int32_t pid, int fd_there, bool (*holds)(void*, int), void* context,
                      int* fd) noexcept override {
    const KeepErrno keep;
    const Wanted wanted{MemoryFileName(id, "/memfd:"), holds, context};
    bool refused = false;
    if (pid > 0 && fd_there >= 0) {
      errno = 0;
      if (open_if_segment(wanted, pid, fd_there, fd)) return 0;
      refused = errno == EACCES || errno == EPERM;
    }
    if (refused && ask_for_segment(id, pid, fd) == 0) return 0;
    if (search_process(wanted, ::getppid(), fd) || search_names(wanted, fd)) return 0;
    DIR* processes = ::opendir("/proc");
    if (processes == nullptr) return errno;
    bool found = false;
    while (const dirent* entry = ::readdir(processes)) {
      const long number = std::strtol(entry->d_name, nullptr, 10);
      if (number > 0 && search_process(wanted, static_cast<std::int32_t>(number), fd)) {
        found = true;
        break;
      }
    }
    ::closedir(processes);
    return found ? 0 : refused ? EACCES : ENOENT;
  }

  int set_aside(int fd, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    for (;;) {
      if (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return 0;
      if (errno != EINTR) return errno;
    }
  }

  int try_lock_file(int fd) noexcept override {
    const KeepErrno keep;
    return result(::flock(fd, LOCK_EX | LOCK_NB));
  }

  int duplicate(int fd, int* out) noexcept override {
    const KeepErrno keep;
    const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return errno;
    *out = copy;
    return 0;
  }

  int describe(int fd, SegmentFile* out) noexcept override {
    const KeepErrno keep;
    struct stat found{};
    if (::fstat(fd, &found) != 0) return errno;
    out->bytes = found.st_size > 0 ? static_cast<std::size_t>(found.st_size) : 0;
    out->held = found.st_blocks > 0 ? static_cast<std::size_t>(found.st_blocks) * k_stat_block : 0;
    out->page = explicit_page(fd, found);
    out->user = found.st_uid;
    out->mode = found.st_mode & 07777U;
    out->regular = S_ISREG(found.st_mode);
    const int seals = ::fcntl(fd, F_GET_SEALS);
    out->sealed = seals > 0 && (seals & F_SEAL_SHRINK) != 0;
    out->device = found.st_dev;
    out->inode = found.st_ino;
    return 0;
  }

  int held_past_end(int fd, std::size_t bytes, std::size_t* out) noexcept override {
    const KeepErrno keep;
    // Nobody can read what is mapped past the end of a file, but the kernel tells whether it has a page there.
    const std::size_t huge = page_size() * (page_size() / sizeof(void*));  // what one table of pages maps
    const std::size_t begin = base::align_down(bytes, page_size());
    const std::size_t end = base::align_up(bytes, huge);
    *out = 0;
    if (begin == end) return 0;
    void* const mapped = ::mmap(nullptr, end - begin, PROT_NONE, MAP_SHARED, fd, static_cast<off_t>(begin));
    if (mapped == MAP_FAILED) return errno;
    const int error = count_resident(static_cast<char*>(mapped) + (bytes - begin), end - bytes, out);
    ::munmap(mapped, end - begin);
    return error;
  }

  void close(int fd) noexcept override {
    const KeepErrno keep;
    ::close(fd);
  }

  int map(int fd, std::size_t bytes, std::size_t page, bool writable, void** out) noexcept override {
    const KeepErrno keep;
    const std::size_t huge = std::size_t{2} << 20;
    const std::size_t alignment = page > huge ? page : huge;
    const std::size_t size = base::align_up(bytes, page_size());
    char* const room = static_cast<char*>(
        ::mmap(nullptr, size + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (room == MAP_FAILED) return errno;
    char* const start = reinterpret_cast<char*>(base::align_up(reinterpret_cast<std::size_t>(room), alignment));
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void* const mapped = ::mmap(start, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
      const int error = errno;
      ::munmap(room, size + alignment);
      return error;
    }
    if (start != room) ::munmap(room, static_cast<std::size_t>(start - room));
    const auto rest = static_cast<std::size_t>(room + alignment - start);
    if (rest != 0) ::munmap(start + size, rest);
    *out = mapped;
    return 0;
  }

  int unmap(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::munmap(address, bytes));
  }

  int prefault(void* address, std::size_t bytes, bool writable) noexcept override {
    const KeepErrno keep;
    for (;;) {
      if (::madvise(address, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return 0;
      if (errno == EINTR || errno == EAGAIN) continue;
      if (errno != EINVAL) return errno;
      break;
    }
    return ENOSYS;  // before Linux 5.14
  }

  int lock(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::mlock(address, bytes));
  }

  int advise_huge(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::madvise(address, bytes, MADV_HUGEPAGE));
  }

  int discard(int fd, std::size_t offset, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                              static_cast<off_t>(bytes)));
  }

  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return count_resident(address, bytes, out);
  }

  char transparent_huge_pages() noexcept override {
    const HugePageSetting setting = huge_page_setting("shmem_enabled");
    if (setting.path[0] == '\0') return '?';
    switch (setting.chosen[0]) {
      case 'a': return setting.chosen[1] == 'd' ? 'm' : 'a';
      case 'w': return 'w';
      case 'f': return 'a';
      default: return 'n';
    }
  }

  std::size_t lockable_memory() noexcept override {
    const KeepErrno keep;
    rlimit limit{};
    if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
    return limit.rlim_cur == RLIM_INFINITY ? SIZE_MAX : static_cast<std::size_t>(limit.rlim_cur);
  }

  std::uint32_t user() noexcept override { return ::geteuid(); }
  std::int32_t process_id() noexcept override { return ::getpid(); }

  int identify(std::int32_t pid, ProcessIdentity* out) noexcept override {
    const KeepErrno keep;
    ProcessLine line;
    if (!read_process(pid, &line)) return ESRCH;
    out->start = line.start;
    out->image = line.image;
    out->namespace_ = pid_namespace();
    return 0;
  }

  Liveness liveness(std::int32_t pid, const ProcessIdentity& identity) noexcept override {
    const KeepErrno keep;
    if (identity.namespace_ != 0 && identity.namespace_ != pid_namespace()) return Liveness::unknown;
    ProcessLine line;
    if (!read_process(pid, &line)) return ::access("/proc/self/stat", R_OK) == 0 ? Liveness::dead : Liveness::unknown;
    if (line.state == 'Z' || line.state == 'X' || line.state == 'x') return Liveness::dead;
    if (identity.start != 0 && line.start != identity.start) return Liveness::dead;
    // 0 and 1 stand for "may not be read".
    if (identity.image > 1 && line.image > 1 && line.image != identity.image) return Liveness::dead;
    return Liveness::alive;
  }

  std::uint64_t seconds() noexcept override {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec);
  }

  int random(void* out, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return ::getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes) ? 0 : EIO;
  }

 private:
  static int size_to(int fd, std::size_t bytes) noexcept {
    if (bytes > static_cast<std::size_t>(INT64_MAX)) return EFBIG;
    return result(::ftruncate(fd, static_cast<off_t>(bytes)));
  }

  int hand_over(int made, int error, int* fd) noexcept {
    if (error != 0) {
      ::close(made);
      return error;
    }
    *fd = made;
    return 0;
  }

  struct Wanted {
    MemoryFileName memory_file;
    bool (*holds)(void*, int);
    void* context;
  };

  // Descriptors of anything but memory files and files of the folder are not opened: that may have effects.
  static bool open_if_segment(const Wanted& wanted, std::int32_t pid, int fd_there, int* fd) noexcept {
    char path[64];
    char target[sizeof(Path) + 64];
    std::snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd_there);
    const ssize_t length = ::readlink(path, target, sizeof target - 1);
    if (length <= 0) return false;
    target[length] = '\0';
    const bool named = std::strncmp(target, k_folder, std::strlen(k_folder)) == 0 && target[std::strlen(k_folder)] == '/';
    if (!named && std::strncmp(target, wanted.memory_file.text, std::strlen(wanted.memory_file.text)) != 0) return false;
    const int opened = ::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return opened >= 0 && (named ? keep_if_held(wanted, opened, fd) : (*fd = opened, true));
  }

  static bool keep_if_held(const Wanted& wanted, int opened, int* fd) noexcept {
    if (wanted.holds(wanted.context, opened)) {
      *fd = opened;
      return true;
    }
    ::close(opened);
    return false;
  }

  bool search_names(const Wanted& wanted, int* fd) noexcept {
    struct Search {
      LinuxSharedMemory* self;
      const Wanted& wanted;
      int fd = -1;
    } search{this, wanted};
    (void)for_each_name([](void* context, const char* name) {
      auto* const s = static_cast<Search*>(context);
      int opened = -1;
      return s->self->open_named(name, &opened) != 0 || !keep_if_held(s->wanted, opened, &s->fd);
    }, &search);
    if (search.fd >= 0) *fd = search.fd;
    return search.fd >= 0;
  }

  static bool search_process(const Wanted& wanted, std::int32_t pid, int* fd) noexcept {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR* descriptors = ::opendir(path);
    if (descriptors == nullptr) return false;
    bool found = false;
    while (const dirent* entry = ::readdir(descriptors)) {
      if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
      if (open_if_segment(wanted, pid, static_cast<int>(std::strtol(entry->d_name, nullptr, 10)), fd)) {
        found = true;
        break;
      }
    }
    ::closedir(descriptors);
    return found;
  }
};

}  // namespace

bool is_segment_name(const char* name) noexcept {
  const std::size_t length = std::strlen(name);
  if (length == 0 || length > k_segment_name_length || name[0] == '.') return false;
  return std::strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

SharedMemory& shared_memory() noexcept {
  alignas(LinuxSharedMemory) static unsigned char storage[sizeof(LinuxSharedMemory)];
  static SharedMemory* const instance = new (storage) LinuxSharedMemory;
  return *instance;
}

}  // namespace rtpool::os
