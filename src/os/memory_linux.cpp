// Linux: mmap, mprotect, madvise, mlock, membarrier. The reasons for each choice stand at each function.
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/bits.hpp"
#include "os/errno.hpp"
#include "os/kernel_pages.hpp"
#include "os/memory.hpp"
#include "os/text_file.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24  // Linux 5.18
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4  // Linux 5.7
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000  // Linux 4.17
#endif
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

namespace rtpool::os {
namespace {

std::size_t number_in_file(const char* path, std::size_t otherwise) noexcept {
  char text[64];
  if (!read_text_file(path, text, sizeof text)) return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  return end == text ? otherwise : static_cast<std::size_t>(value);
}

struct CgroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
  const char* droppable[2];  // lines of memory.stat, each with what stands around its name
};

// The lowest limit that holds for this process, and the group that has it.
struct CgroupLimit {
  std::size_t bytes;  // no limit of a group is above what it began with
  const CgroupFiles* files = nullptr;
  char folder[1024] = "";
};
constexpr CgroupFiles k_cgroup_v2{"/sys/fs/cgroup", "memory.max", "memory.current",
                                  {"\ninactive_file ", "\nactive_file "}};
constexpr CgroupFiles k_cgroup_v1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                  {"\ntotal_inactive_file ", "\ntotal_active_file "}};

// `group` (of `length` characters) and its ancestors up to the mount point, where containers see their own: the lowest
// limit counts.
void look_up(const CgroupFiles& files, const char* group, std::size_t length, CgroupLimit* found) noexcept {
  char path[1200];
  for (std::size_t n = length;; --n) {
    if (n == length || n == 0 || group[n] == '/') {
      const int part = n == 1 ? 0 : static_cast<int>(n);  // "/" is the mount point
      std::snprintf(path, sizeof path, "%s%.*s/%s", files.mount, part, group, files.limit);
      const std::size_t limit = number_in_file(path, SIZE_MAX);
      if (limit < found->bytes) {
        found->bytes = limit;
        found->files = &files;
        std::snprintf(found->folder, sizeof found->folder, "%s%.*s", files.mount, part, group);
      }
    }
    if (n == 0) return;
  }
}

// The lowest limit below `most` bytes.
CgroupLimit cgroup_limit(std::size_t most) noexcept {
  CgroupLimit found{most};
  char text[1024];
  if (!read_text_file("/proc/self/cgroup", text, sizeof text)) text[0] = '\0';
  const char* v2 = std::strncmp(text, "0::", 3) == 0 ? text : std::strstr(text, "\n0::");
  if (v2 != nullptr) {
    const char* group = std::strstr(v2, "::") + 2;
    look_up(k_cgroup_v2, group, std::strcspn(group, "\n"), &found);
  }
  const char* v1 = std::strstr(text, ":memory:");
  const char* group = v1 != nullptr ? v1 + std::strlen(":memory:") : "";
  look_up(k_cgroup_v1, group, std::strcspn(group, "\n"), &found);
  return found;
}

// What of a limit is in use for good: file pages that the kernel drops when memory is needed do not count.
std::size_t used_of(const CgroupLimit& limit) noexcept {
  char path[1200];
  std::snprintf(path, sizeof path, "%s/%s", limit.folder, limit.files->usage);
  std::size_t used = number_in_file(path, 0);
  std::snprintf(path, sizeof path, "%s/memory.stat", limit.folder);
  char stat[4096];
  if (!read_text_file(path, stat, sizeof stat)) stat[0] = '\0';
  for (const char* line : limit.files->droppable) {
    const char* at = std::strstr(stat, line);
    const std::size_t pages = at == nullptr ? 0 : std::strtoull(at + std::strlen(line), nullptr, 10);
    used -= pages < used ? pages : used;
  }
  return used;
}

std::size_t machine_memory() noexcept {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  return pages > 0 ? static_cast<std::size_t>(pages) * os::page_size() : 0;
}

class LinuxMemory final : public Memory {
 public:
  LinuxMemory() noexcept {
    const KeepErrno keep;
    constexpr long needed = MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    const long commands = ::syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    barrier_ = commands > 0 && (commands & needed) == needed;
  }

  std::size_t page_size() noexcept override { return os::page_size(); }

  int reserve(std::size_t bytes, std::size_t alignment, void** out) noexcept override {
    const KeepErrno keep;
    if (bytes == 0 || bytes > SIZE_MAX - alignment) return ENOMEM;
    // PROT_NONE private memory is not accounted, also under strict overcommit. Map more and cut the ends off.
    const std::size_t mapped = bytes + (alignment > page_size() ? alignment - page_size() : 0);
    void* const raw = ::mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return errno;
    const auto start = reinterpret_cast<std::size_t>(raw);
    const std::size_t aligned = base::align_up(start, alignment);
    if (aligned != start) ::munmap(raw, aligned - start);
    const std::size_t tail = start + mapped - (aligned + bytes);
    if (tail != 0) ::munmap(reinterpret_cast<void*>(aligned + bytes), tail);
    *out = reinterpret_cast<void*>(aligned);
    return 0;
  }

  int release(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::munmap(address, bytes));
  }

  int commit(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::mprotect(address, bytes, PROT_READ | PROT_WRITE));
  }

  int decommit(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    // A fresh mapping over the old one drops memory, lock, advice and accounting in one call.
    void* const p = ::mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return p == MAP_FAILED ? errno : 0;
  }

  int renew(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    // One call, so that no other thread's mapping can come in between; neither MADV_DONTNEED nor mremap would do: the first leaves
    // the explicit huge page reserved for its old place, the second a hole.
    void* const p = ::mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return p == MAP_FAILED ? errno : 0;
  }

  int guard(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::mprotect(address, bytes, PROT_NONE));
  }

  int commit_huge(void* address, std::size_t bytes, std::size_t page) noexcept override {
    const KeepErrno keep;
    const int size_flag = static_cast<int>(base::log2_floor(page)) << MAP_HUGE_SHIFT;
    // Without MAP_NORESERVE the kernel sets the pages aside now and refuses here, not with SIGBUS at the first touch.
    // The mapping is made elsewhere first: a refused MAP_FIXED may already have unmapped the old range.
    void* const probe = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | size_flag, -1, 0);
    if (probe == MAP_FAILED) return errno;
    void* const moved = ::mremap(probe, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, address);
    if (moved == MAP_FAILED) {
      const int error = errno;
      ::munmap(probe, bytes);
      return error;
    }
    // Refused late (a limit of the hugetlb cgroup): nothing of the kind stays behind.
    const int error = populate(address, bytes);
    if (error != 0) (void)renew(address, bytes);
    return error;
  }

  int prefault(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return populate(address, bytes);
  }

  int lock(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::mlock(address, bytes));
  }

  int unlock(void* address, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::munlock(address, bytes));
  }

  int advise_huge(void* address, std::size_t bytes, bool wanted) noexcept override {
    const KeepErrno keep;
    return result(::madvise(address, bytes, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
  }

  int gather(void* frames, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    return result(::madvise(frames, bytes, MADV_COLLAPSE));
  }

  int discard(void* address, std::size_t bytes, bool locked) noexcept override {
    const KeepErrno keep;
    if (!locked) {
      if (::madvise(address, bytes, MADV_DONTNEED) == 0) return 0;
      if (errno != EINVAL) return errno;
    }
    if (::madvise(address, bytes, MADV_DONTNEED_LOCKED) == 0) return 0;
    if (errno != EINVAL) return errno;
    // Before Linux 5.18 locked memory must be unlocked first; it is locked again when it is made ready again.
    if (::munlock(address, bytes) != 0) return errno;
    return result(::madvise(address, bytes, MADV_DONTNEED));
  }

  int move(void* from, void* to, std::size_t bytes) noexcept override {
    const KeepErrno keep;
    // Of a locked range the kernel moves the pages and unlocks what stays. That this is one it says by refusing to empty it.
    if (::madvise(to, page_size(), MADV_DONTNEED) != 0) return EPERM;
    if (::mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to) return 0;
    const int error = errno;
    // The kernel may have refused after it had unmapped what was there.
    void* const again = ::mmap(to, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (again != MAP_FAILED && again != to) ::munmap(again, bytes);  // before Linux 4.17: an address of its own, as the range is there
    return error;
  }

  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return count_resident(address, bytes, out);
  }

  int process_barrier() noexcept override {
    const KeepErrno keep;
    if (!barrier_) return ENOSYS;
    if (::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return 0;
    if (errno != EPERM) return errno;
    // Not registered yet. To register takes 5 to 12 ms in a process with several threads (the kernel waits for all
    // processors), so it waits for the first need: a short script that only allocates never comes here.
    if (::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) return errno;
    return result(::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
  }

  bool process_barrier_available() noexcept override { return barrier_; }

  std::size_t physical_memory() noexcept override {
    const KeepErrno keep;
    const std::size_t machine = machine_memory();
    if (machine == 0) return 0;
    return base::align_down(cgroup_limit(machine).bytes, page_size());
  }

  std::size_t available_memory() noexcept override {
    const KeepErrno keep;
    char text[2048];
    std::size_t available = 0;
    if (read_text_file("/proc/meminfo", text, sizeof text)) {
      if (const char* line = std::strstr(text, "MemAvailable:")) {
        available = static_cast<std::size_t>(std::strtoull(line + 13, nullptr, 10)) << 10;
      }
    }
    const std::size_t machine = machine_memory();
    const CgroupLimit limit = cgroup_limit(machine != 0 ? machine : SIZE_MAX);
    if (limit.files != nullptr) {
      const std::size_t used = used_of(limit);
      const std::size_t room = limit.bytes > used ? limit.bytes - used : 0;
      if (room < available || available == 0) available = room;
    }
    return available;
  }

  std::size_t address_space() noexcept override {
    const KeepErrno keep;
    rlimit limit{};
    if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    return static_cast<std::size_t>(limit.rlim_cur);
  }

  std::size_t lockable_memory() noexcept override {
    const KeepErrno keep;
    rlimit limit{};
    if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
    return limit.rlim_cur == RLIM_INFINITY ? SIZE_MAX : static_cast<std::size_t>(limit.rlim_cur);
  }

  char transparent_huge_pages() noexcept override {
    const HugePageSetting setting = huge_page_setting("enabled");
    if (setting.path[0] == '\0') return '?';
    return setting.chosen[0] != 'n' && setting.larger[0] != '\0' ? 'l' : setting.chosen[0];
  }

  std::size_t free_huge_pages(std::size_t page) noexcept override {
    const KeepErrno keep;
    char path[128];
    std::snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%zukB/free_hugepages", page >> 10);
    return number_in_file(path, 0);
  }

 private:
  int populate(void* address, std::size_t bytes) noexcept {
    for (;;) {
      if (::madvise(address, bytes, MADV_POPULATE_WRITE) == 0) return 0;
      if (errno == EINTR || errno == EAGAIN) continue;
      if (errno != EINVAL) return errno;
      break;
    }
    // Before Linux 5.14: touch. A failure here is the kernel's OOM killer, which nothing in user space can report.
    auto* const at = static_cast<volatile char*>(address);
    for (std::size_t i = 0; i < bytes; i += page_size()) at[i] = at[i];
    return 0;
  }

  bool barrier_ = false;
};

}  // namespace

Memory& memory() noexcept {
  // Placement into static storage: no destructor at exit, blocks may be freed after every static is gone.
  alignas(LinuxMemory) static unsigned char storage[sizeof(LinuxMemory)];
  static Memory* const instance = new (storage) LinuxMemory;
  return *instance;
}

}  // namespace rtpool::os
