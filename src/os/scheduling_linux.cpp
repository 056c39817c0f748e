// Linux: sched_setscheduler, sched_setaffinity, mlockall, /dev/cpu_dma_latency.
#include "os/scheduling.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>

#include "os/children.hpp"
#include "os/memory_map.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_page = 4096;
constexpr int k_highest_priority = 99;
#ifndef SCHED_RESET_ON_FORK
constexpr int SCHED_RESET_ON_FORK = 0x40000000;
#endif
constexpr int k_sched_deadline = 6;

int result(long rc) noexcept { return rc == 0 ? 0 : errno; }

struct Range {
  std::size_t begin;
  std::size_t end;
};

// The locked mappings of the process as /proc/self/smaps shows them. A growing array by hand: the core does without
// exceptions, and a failed allocation must come back as ENOMEM.
class Ranges final : public LockedMemory {
 public:
  ~Ranges() override { std::free(ranges_); }

  int add(Range range) noexcept {
    if (count_ == capacity_) {
      const std::size_t capacity = capacity_ == 0 ? 64 : 2 * capacity_;
      void* const grown = std::realloc(ranges_, capacity * sizeof(Range));
      if (grown == nullptr) return ENOMEM;
      ranges_ = static_cast<Range*>(grown);
      capacity_ = capacity;
    }
    ranges_[count_++] = range;
    return 0;
  }
  std::size_t count() const noexcept { return count_; }
  const Range& operator[](std::size_t i) const noexcept { return ranges_[i]; }
  bool contains(std::size_t address) const noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      if (ranges_[i].begin <= address && address < ranges_[i].end) return true;
    }
    return false;
  }

  // Whether mappings made from now on are locked as well (mlockall with MCL_FUTURE).
  bool future = false;

 private:
  Range* ranges_ = nullptr;
  std::size_t count_ = 0;
  std::size_t capacity_ = 0;
};

// Collects every mapping whose flags contain "lo".
int read_locked(Ranges* out) noexcept {
  std::FILE* const file = std::fopen("/proc/self/smaps", "re");
  if (file == nullptr) return errno;
  char line[512];
  Range current{0, 0};
  int error = 0;
  while (error == 0 && std::fgets(line, sizeof line, file) != nullptr) {
    Range header{0, 0};
    if (std::sscanf(line, "%zx-%zx ", &header.begin, &header.end) == 2) {
      current = header;
    } else if (std::strncmp(line, "VmFlags:", 8) == 0 && std::strstr(line, " lo") != nullptr) {
      error = out->add(current);
    }
    // A mapping's path may be longer than the buffer: drop the rest of its line.
    while (std::strchr(line, '\n') == nullptr && std::fgets(line, sizeof line, file) != nullptr) {
    }
  }
  std::fclose(file);
  return error;
}

// The kernel does not tell whether MCL_FUTURE is set; a fresh mapping shows it. Its neighbours may merge with it, so it
// is looked up by address.
int remember_locked(Ranges* out) noexcept {
  void* const probe = ::mmap(nullptr, k_page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (probe == MAP_FAILED) return errno;
  const int error = read_locked(out);
  out->future = out->contains(reinterpret_cast<std::size_t>(probe));
  ::munmap(probe, k_page);
  return error;
}

// What may be accessed of the present mappings becomes resident, but for what lies in `absent`. As with mlockall it is no error where
// that cannot be (a mapping that goes beyond the end of its file).
int make_resident_but(std::span<const AddressRange> absent) noexcept {
  MemoryMap mapped;
  if (const int error = mapped.take()) return error;
  const auto lock = [](std::size_t begin, std::size_t end) {
    if (begin < end) static_cast<void>(::mlock(reinterpret_cast<void*>(begin), end - begin));
  };
  std::size_t next = 0;
  for (std::size_t i = 0; i < mapped.count(); ++i) {
    if (!mapped[i].accessible) continue;
    std::size_t at = mapped[i].begin;
    while (next < absent.size() && absent[next].end <= at) ++next;
    for (; next < absent.size() && absent[next].begin < mapped[i].end; ++next) {
      lock(at, absent[next].begin);
      at = absent[next].end;
      if (at >= mapped[i].end) break;  // which may go on in the next one
    }
    lock(at, mapped[i].end);
  }
  return 0;
}

int lock_all_but(std::span<const AddressRange> absent) noexcept {
  if (!absent.empty()) {
    // What there is stays locked from when it comes to be resident; each call says anew what is to become of later mappings.
    if (::mlockall(MCL_CURRENT | MCL_ONFAULT) == 0 && ::mlockall(MCL_FUTURE) == 0) return make_resident_but(absent);
    if (errno != EINVAL) return errno;  // a kernel without MCL_ONFAULT, before Linux 4.4
  }
  return ::mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : errno;
}

bool has_capability(unsigned capability) noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return (data[capability / 32].effective & (1U << (capability % 32))) != 0;
}

Policy policy_of(int number) noexcept {
  switch (number & ~SCHED_RESET_ON_FORK) {
    case SCHED_OTHER: return Policy::other;
    case SCHED_BATCH: return Policy::batch;
    case SCHED_IDLE: return Policy::idle;
    case SCHED_FIFO: return Policy::fifo;
    case SCHED_RR: return Policy::round_robin;
    case k_sched_deadline: return Policy::deadline;
    default: return Policy::unknown;
  }
}

// Descriptors of /dev/cpu_dma_latency that are held, -1 for a free place. A child's copy would hold the processors awake
// for as long as the child lives: there it becomes an ordinary file, so that its number stays the section's to close.
std::atomic<int> g_latency_held[16] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

void exchange_latency(int from, int to) noexcept {
  for (std::atomic<int>& held : g_latency_held) {
    int expected = from;
    if (held.compare_exchange_strong(expected, to, std::memory_order_relaxed)) return;
  }
}

void release_latency_in_child() noexcept {
  for (const std::atomic<int>& held : g_latency_held) {
    const int descriptor = held.load(std::memory_order_relaxed);
    if (descriptor < 0) continue;
    const int nothing = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing < 0) continue;
    ::dup3(nothing, descriptor, O_CLOEXEC);
    ::close(nothing);
  }
}

class LinuxScheduling final : public Scheduling {
 public:
  int thread_scheduling(ThreadScheduling* out) noexcept override {
    // The kernel's calls, which are about a thread: musl refuses its own, as POSIX has them be about the process.
    const auto policy = static_cast<int>(::syscall(SYS_sched_getscheduler, 0));
    if (policy < 0) return errno;
    sched_param parameters{};
    if (::syscall(SYS_sched_getparam, 0, &parameters) != 0) return errno;
    out->policy = policy_of(policy);
    out->priority = parameters.sched_priority;
    out->reset_on_fork = (policy & SCHED_RESET_ON_FORK) != 0;
    errno = 0;
    // Linux keeps a nice value for each thread, whatever POSIX says of processes.
    const int nice = ::getpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)));
    out->nice = errno == 0 ? nice : 0;
    return 0;
  }

  int set_thread_scheduling(const ThreadScheduling& wanted) noexcept override {
    int policy = 0;
    switch (wanted.policy) {
      case Policy::other: policy = SCHED_OTHER; break;
      case Policy::batch: policy = SCHED_BATCH; break;
      case Policy::idle: policy = SCHED_IDLE; break;
      case Policy::fifo: policy = SCHED_FIFO; break;
      case Policy::round_robin: policy = SCHED_RR; break;
      default: return EINVAL;
    }
    if (wanted.reset_on_fork) policy |= SCHED_RESET_ON_FORK;
    sched_param parameters{};
    parameters.sched_priority = wanted.priority;
    // The nice value survives a change of policy, so there is nothing to set back.
    return result(::syscall(SYS_sched_setscheduler, 0, policy, &parameters));
  }

  int thread_affinity(cpu_set_t* out) noexcept override { return result(::sched_getaffinity(0, sizeof *out, out)); }

  int set_thread_affinity(const cpu_set_t& wanted) noexcept override {
    return result(::sched_setaffinity(0, sizeof wanted, &wanted));
  }

  int exchange_child_settings(const ChildSettings& wanted, ChildSettings* before) noexcept override {
    return os::exchange_child_settings(wanted, before);
  }

  bool may_clear_reset_on_fork() noexcept override { return has_capability(CAP_SYS_NICE); }

  int lock_process(std::span<const AddressRange> absent, std::unique_ptr<LockedMemory>* before) noexcept override {
    std::unique_ptr<Ranges> ranges(new (std::nothrow) Ranges);
    if (ranges == nullptr) return ENOMEM;
    if (const int error = remember_locked(ranges.get())) return error;
    if (const int error = lock_all_but(absent)) return error;
    *before = std::move(ranges);
    return 0;
  }

  int unlock_process(const LockedMemory& before) noexcept override {
    const auto& ranges = static_cast<const Ranges&>(before);
    if (ranges.future) return 0;  // Everything was locked before and stays so.
    if (::munlockall() != 0) return errno;
    int error = 0;
    for (std::size_t i = 0; i < ranges.count(); ++i) {
      // ENOMEM: part of it has been unmapped meanwhile; the rest is locked again.
      if (::mlock(reinterpret_cast<void*>(ranges[i].begin), ranges[i].end - ranges[i].begin) != 0 && errno != ENOMEM) {
        error = errno;
      }
    }
    return error;
  }

  int hold_wakeup_latency(std::int32_t microseconds, int* descriptor) noexcept override {
    const int file = ::open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    if (file < 0) return errno;
    if (::write(file, &microseconds, sizeof microseconds) != static_cast<ssize_t>(sizeof microseconds)) {
      const int error = errno;
      ::close(file);
      return error;
    }
    static const int k_watched = ::pthread_atfork(nullptr, nullptr, release_latency_in_child);
    (void)k_watched;
    exchange_latency(-1, file);
    *descriptor = file;
    return 0;
  }

  int release_wakeup_latency(int descriptor) noexcept override {
    exchange_latency(descriptor, -1);
    return result(::close(descriptor));
  }

  int allowed_priority() noexcept override {
    if (has_capability(CAP_SYS_NICE)) return k_highest_priority;
    rlimit limit{};
    if (::getrlimit(RLIMIT_RTPRIO, &limit) != 0) return 0;
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > static_cast<rlim_t>(k_highest_priority)) {
      return k_highest_priority;
    }
    return static_cast<int>(limit.rlim_cur);
  }
};

}  // namespace

Scheduling& scheduling() noexcept {
  alignas(LinuxScheduling) static unsigned char storage[sizeof(LinuxScheduling)];
  static Scheduling* const instance = new (storage) LinuxScheduling;
  return *instance;
}

}  // namespace rtpool::os
