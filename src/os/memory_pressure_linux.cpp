// Linux: /proc/pressure/memory and the cgroup's memory.pressure, read, and polled with a trigger.
#include "os/memory_pressure.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <mutex>
#include <new>

#include "os/errno.hpp"
#include "os/helper_thread.hpp"
#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "os/text_file.hpp"

namespace rtpool::os {
namespace {

constexpr char k_machine[] = "/proc/pressure/memory";
constexpr double k_stalled_percent = 1.0;
// 50 ms of waiting in 2 s. An unprivileged process may ask for windows that are multiples of 2 s only.
constexpr char k_trigger[] = "some 50000 2000000";

bool stalled(const char* path) noexcept {
  char text[256];
  if (!read_text_file(path, text, sizeof text)) return false;
  const char* const average = std::strstr(text, "some avg10=");
  return average != nullptr && std::strtod(average + 11, nullptr) >= k_stalled_percent;
}

// Bytes of a line of /proc/meminfo; 0: there is none.
std::size_t bytes_of(const char* text, const char* name) noexcept {
  const char* const line = std::strstr(text, name);
  return line == nullptr ? 0 : static_cast<std::size_t>(std::strtoull(line + std::strlen(name), nullptr, 10)) << 10;
}

MemorySigns of_the_machine(bool stalls) noexcept {
  MemorySigns signs;
  signs.machine_stalls = stalls;
  char text[2048];
  if (read_text_file("/proc/meminfo", text, sizeof text)) {
    signs.machine = bytes_of(text, "MemTotal:");
    signs.machine_available = bytes_of(text, "MemAvailable:");
  }
  return signs;
}

// Where the pressure of the process' own cgroup (version 2) stands: as most systems have it, or beside version 1.
class CgroupFile {
 public:
  CgroupFile() noexcept {
    char group[512];
    if (!read_text_file("/proc/self/cgroup", group, sizeof group)) return;
    const char* const line = std::strncmp(group, "0::", 3) == 0 ? group : std::strstr(group, "\n0::");
    if (line == nullptr) return;
    const char* const name = std::strstr(line, "::") + 2;
    const int length = static_cast<int>(std::strcspn(name, "\n"));
    if (length <= 1) return;  // the root's is the machine's
    for (const char* const mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      std::snprintf(path_, sizeof path_, "%s%.*s/memory.pressure", mount, length, name);
      if (::access(path_, R_OK) == 0) return;
    }
    path_[0] = '\0';
  }
  const char* path() const noexcept { return path_; }

 private:
  char path_[640] = "";
};

// A descriptor that is only closed while it is what it was: a program may have closed it and have its number by now.
class Trigger {
 public:
  int open(const char* path) noexcept {
    const int file = ::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return errno;
    if (::write(file, k_trigger, sizeof k_trigger) < 0 || ::fstat(file, &what_) != 0) {
      const int error = errno;
      ::close(file);
      return error;
    }
    file_ = file;
    return 0;
  }
  void close() noexcept {
    struct stat now {};
    if (file_ >= 0 && ::fstat(file_, &now) == 0 && now.st_dev == what_.st_dev && now.st_ino == what_.st_ino) ::close(file_);
    file_ = -1;
  }
  int file() const noexcept { return file_; }

 private:
  int file_ = -1;
  struct stat what_ {};
};

// What wakes a sleeper: a timer, as a descriptor that is something else by then refuses to be set.
class Waker {
 public:
  int open() noexcept {
    file_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return file_ < 0 ? errno : 0;
  }
  void close() noexcept {
    if (set(0)) ::close(file_);
    file_ = -1;
  }
  // Lets it ring in so many nanoseconds; 0: not (any more). False: it is not ours.
  bool set(long after) noexcept {
    const itimerspec when{{0, 0}, {0, after}};
    return file_ >= 0 && ::timerfd_settime(file_, 0, &when, nullptr) == 0;
  }
  int file() const noexcept { return file_; }

 private:
  int file_ = -1;
};

class LinuxMemoryPressure final : public MemoryPressure {
 public:
  bool now() noexcept override {
    const KeepErrno keep;
    MemorySigns signs = of_the_machine(stalled(k_machine));
    signs.group_stalls = stalled(CgroupFile().path());
    signs.own = memory().physical_memory();
    signs.own_available = memory().available_memory();
    return memory_is_short(signs);
  }

  int watch() noexcept override {
    const KeepErrno keep;
    if (waker_.file() >= 0) return 0;
    if (const int error = machine_.open(k_machine); error != 0) return error;
    (void)group_.open(CgroupFile().path());  // the machine's tells, too, only later
    const std::lock_guard guard(lock_);
    const int error = waker_.open();
    if (error != 0) close_triggers();
    return error;
  }

  void unwatch() noexcept override {
    const KeepErrno keep;
    close_triggers();
    const std::lock_guard guard(lock_);
    waker_.close();
  }

  bool sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept override {
    const KeepErrno keep;
    if (waker_.file() < 0) {
      os::sleep_while(word, seen, most);
      return false;
    }
    pollfd files[] = {{waker_.file(), POLLIN, 0}, {machine_.file(), POLLPRI, 0}, {group_.file(), POLLPRI, 0}};
    const timespec span{static_cast<time_t>(most / 1'000'000'000), static_cast<long>(most % 1'000'000'000)};
    if (word.load(std::memory_order_acquire) != seen) return false;
    if (::ppoll(files, 3, most == k_for_ever ? nullptr : &span, nullptr) <= 0) return false;
    bool ours = files[0].revents == 0 || waker_.set(0);
    for (const pollfd& file : files) ours = ours && (file.revents & (POLLERR | POLLNVAL | POLLHUP)) == 0;
    if (!ours) {
      unwatch();
      return false;
    }
    if ((files[2].revents & POLLPRI) != 0) return true;
    return (files[1].revents & POLLPRI) != 0 && memory_is_short(of_the_machine(true));
  }

  void wake(const std::atomic<std::uint32_t>& word) noexcept override {
    const KeepErrno keep;
    wake_sleepers(word);
    const std::lock_guard guard(lock_);
    (void)waker_.set(1);
  }

 private:
  void close_triggers() noexcept {
    machine_.close();
    group_.close();
  }

  Trigger machine_;
  Trigger group_;
  PriorityLock lock_;  // of waker_
  Waker waker_;
};

}  // namespace

MemoryPressure& memory_pressure() noexcept {
  // Placement into static storage: no destructor at exit.
  alignas(LinuxMemoryPressure) static unsigned char storage[sizeof(LinuxMemoryPressure)];
  static MemoryPressure* const instance = new (storage) LinuxMemoryPressure;
  return *instance;
}

}  // namespace rtpool::os
