// Linux: getrusage(RUSAGE_THREAD) and a perf_event ring of page faults and context switches.
#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>

#include "os/usage.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_page = 4096;
// Eight pages: 2,000 events between two polls. Below the kernel's per-user allowance (perf_event_mlock_kb, 516 KiB).
constexpr std::size_t k_ring_bytes = 8 * k_page;

// The kernel does not copy the ring into a forked child: there a watch is over, and its addresses must not be touched.
std::atomic<std::uint32_t> g_forks{0};

void count_forks() noexcept {
  [[maybe_unused]] static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { g_forks.fetch_add(1, std::memory_order_relaxed); });
}

class LinuxUsage final : public Usage {
 public:
  ~LinuxUsage() override { unwatch(); }

  int read(UsageCounts* out) noexcept override {
    rusage usage;
    if (::getrusage(RUSAGE_THREAD, &usage) != 0) return errno;
    out->minor_faults = static_cast<std::uint64_t>(usage.ru_minflt);
    out->major_faults = static_cast<std::uint64_t>(usage.ru_majflt);
    out->voluntary_switches = static_cast<std::uint64_t>(usage.ru_nvcsw);
    out->involuntary_switches = static_cast<std::uint64_t>(usage.ru_nivcsw);
    return 0;
  }

  int watch() noexcept override {
    if (watching()) return 0;
    unwatch();
    count_forks();
    int error = open_event(false);
    // perf_event_paranoid = 2, the kernel's default, lets an ordinary user watch user mode only: faults that the kernel
    // takes on the thread's behalf (a read(2) into a fresh buffer) are then not seen as they happen.
    if (error == EACCES || error == EPERM) error = open_event(true);
    if (error != 0) return error;
    void* const mapped = ::mmap(nullptr, k_page + k_ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (mapped == MAP_FAILED) {
      error = errno;
      ::close(file_);
      file_ = -1;
      return error;
    }
    page_ = static_cast<perf_event_mmap_page*>(mapped);
    ring_ = static_cast<const unsigned char*>(mapped) + k_page;
    // Touched now, so that reading the ring never faults by itself.
    volatile const unsigned char* const touch = ring_;
    for (std::size_t i = 0; i < k_ring_bytes; i += k_page) (void)touch[i];
    __atomic_store_n(&page_->data_tail, 0, __ATOMIC_RELEASE);  // and nor does handing room back
    events_ = {};
    tail_ = 0;
    forks_ = g_forks.load(std::memory_order_relaxed);
    return 0;
  }

  void unwatch() noexcept override {
    if (page_ == nullptr) return;
    if (watching()) ::munmap(page_, k_page + k_ring_bytes);
    ::close(file_);
    page_ = nullptr;
    file_ = -1;
  }

  bool poll(UsageEvents* out) noexcept override {
    if (!watching()) return false;
    // Acquire: the records below `head` were written before it. The kernel wrote them on this very thread.
    const std::uint64_t head = __atomic_load_n(&page_->data_head, __ATOMIC_ACQUIRE);
    const bool complete = head == tail_ || consume(head);
    *out = events_;
    return complete;
  }

 private:
  bool watching() const noexcept {
    return page_ != nullptr && forks_ == g_forks.load(std::memory_order_relaxed);
  }

  int open_event(bool user_only) noexcept {
    perf_event_attr attributes;
    std::memset(&attributes, 0, sizeof attributes);
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_PAGE_FAULTS;
    attributes.sample_period = 1;
    attributes.context_switch = 1;
    attributes.exclude_hv = 1;
    attributes.exclude_kernel = user_only ? 1 : 0;
    // No wake-up of pollers: nobody waits on this descriptor.
    attributes.watermark = 1;
    attributes.wakeup_watermark = k_ring_bytes;
    const long file = ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (file < 0) return errno;
    file_ = static_cast<int>(file);
    return 0;
  }

  // Counts the records up to `head` and hands their room back; false if the kernel says that some were lost.
  bool consume(std::uint64_t head) noexcept {
    bool complete = true;
    while (tail_ < head) {
      perf_event_header record;
      // Records are multiples of 8 bytes, so a header never wraps around the ring's end.
      std::memcpy(&record, ring_ + tail_ % k_ring_bytes, sizeof record);
      if (record.type == PERF_RECORD_SAMPLE) {
        ++events_.faults;
      } else if (record.type == PERF_RECORD_SWITCH) {
        if ((record.misc & PERF_RECORD_MISC_SWITCH_OUT) != 0) {
          if ((record.misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT) != 0) {
            ++events_.involuntary_switches;
          } else {
            ++events_.voluntary_switches;
          }
        }
      } else if (record.type == PERF_RECORD_LOST) {
        complete = false;
      }
      if (record.size == 0) {  // cannot happen; would never end
        complete = false;
        tail_ = head;
        break;
      }
      tail_ += record.size;
    }
    __atomic_store_n(&page_->data_tail, tail_, __ATOMIC_RELEASE);
    return complete;
  }

  int file_ = -1;
  perf_event_mmap_page* page_ = nullptr;
  const unsigned char* ring_ = nullptr;
  std::uint64_t tail_ = 0;
  UsageEvents events_;
  std::uint32_t forks_ = 0;
};

}  // namespace

std::unique_ptr<Usage> make_usage() noexcept { return std::unique_ptr<Usage>(new (std::nothrow) LinuxUsage); }

}  // namespace rtpool::os
