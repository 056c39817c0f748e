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

#include "os/kernel_pages.hpp"
#include "os/usage.hpp"

namespace rtpool::os {
namespace {

// 5,400 faults between two polls. The kernel allows a user 516 KiB of rings a processor (perf_event_mlock_kb) and counts
// what is more against RLIMIT_MEMLOCK: where many sections run at once the later ones get smaller rings.
// Counted in the kernel's pages: a power of two of them, and one in front.
constexpr std::size_t k_ring_wanted = std::size_t{128} << 10;
constexpr std::size_t k_ring_least = std::size_t{8} << 10;

constexpr std::size_t k_usual_record = 128;

struct SampleRecord {  // PERF_RECORD_SAMPLE with IP and ADDR
  perf_event_header header;
  std::uint64_t instruction;
  std::uint64_t address;
};

struct LostRecord {
  perf_event_header header;
  std::uint64_t id;
  std::uint64_t lost;
};

struct MappedRecord {  // PERF_RECORD_MMAP2 as far as the name
  perf_event_header header;
  std::uint32_t process, thread;
  std::uint64_t address, bytes, offset;
  std::uint64_t file[3];
  std::uint32_t protection, flags;
};
static_assert(sizeof(MappedRecord) == 72);

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
    scope_ = WatchScope::all;
    int error = open_event(false);
    if (error == EACCES || error == EPERM) {
      scope_ = WatchScope::user;
      error = open_event(true);
    }
    if (error != 0) {
      scope_ = WatchScope::none;
      return error;
    }
    void* const mapped = map_ring();
    if (mapped == nullptr) {
      error = errno;
      ::close(file_);
      file_ = -1;
      return error;
    }
    const std::size_t page = page_size();
    page_ = static_cast<perf_event_mmap_page*>(mapped);
    ring_ = static_cast<const unsigned char*>(mapped) + page;
    // Touched now, so that reading the ring never faults by itself.
    volatile const unsigned char* const touch = ring_;
    for (std::size_t i = 0; i < ring_bytes_; i += page) (void)touch[i];
    __atomic_store_n(&page_->data_tail, 0, __ATOMIC_RELEASE);  // and nor does handing room back
    events_ = {};
    was_full_ = false;
    tail_ = 0;
    forks_ = g_forks.load(std::memory_order_relaxed);
    return 0;
  }

  void unwatch() noexcept override {
    if (page_ == nullptr) return;
    if (watching()) ::munmap(page_, page_size() + ring_bytes_);
    ::close(file_);
    page_ = nullptr;
    file_ = -1;
  }

  bool poll(UsageEvents* out, WatchListener* listener) noexcept override {
    if (!watching()) return false;
    // Acquire: the records below `head` were written before it. The kernel wrote them on this very thread.
    const std::uint64_t head = __atomic_load_n(&page_->data_head, __ATOMIC_ACQUIRE);
    const bool complete = head == tail_ || consume(head, listener);
    *out = events_;
    return complete;
  }

  WatchScope scope() const noexcept override { return scope_; }

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
    attributes.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_ADDR;
    attributes.context_switch = 1;
    attributes.mmap = 1;
    attributes.mmap2 = 1;
    attributes.mmap_data = 1;
    attributes.exclude_hv = 1;
    attributes.exclude_kernel = user_only ? 1 : 0;
    // No wake-up of pollers: nobody waits on this descriptor.
    attributes.watermark = 1;
    attributes.wakeup_watermark = UINT32_MAX;
    const long file = ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (file < 0) return errno;
    file_ = static_cast<int>(file);
    return 0;
  }

  // nullptr with errno. Sets `ring_bytes_`.
  void* map_ring() noexcept {
    const std::size_t page = page_size();
    for (std::size_t wanted = k_ring_wanted;; wanted /= 2) {
      ring_bytes_ = wanted > page ? wanted : page;
      void* const mapped = ::mmap(nullptr, page + ring_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
      if (mapped != MAP_FAILED) return mapped;
      if ((errno != EPERM && errno != ENOMEM) || wanted <= k_ring_least || ring_bytes_ == page) return nullptr;
    }
  }

  // Copies out of the ring, around its end where need be.
  void copy_out(std::uint64_t from, void* to, std::size_t bytes) const noexcept {
    const std::size_t at = from % ring_bytes_;
    const std::size_t straight = bytes < ring_bytes_ - at ? bytes : ring_bytes_ - at;
    std::memcpy(to, ring_ + at, straight);
    std::memcpy(static_cast<char*>(to) + straight, ring_, bytes - straight);
  }

  // Counts the records up to `head` and hands their room back; false if the kernel says that some were lost.
  bool consume(std::uint64_t head, WatchListener* listener) noexcept {
    // No room for one more record of a usual length: there may have been one.
    const bool full = ring_bytes_ - (head - tail_) < k_usual_record;
    bool complete = !full;
    while (tail_ < head) {
      perf_event_header record;
      // Records are multiples of 8 bytes, so a header never wraps around the ring's end.
      std::memcpy(&record, ring_ + tail_ % ring_bytes_, sizeof record);
      switch (record.type) {
        case PERF_RECORD_SAMPLE:
          ++events_.faults;
          if (listener != nullptr && record.size >= sizeof(SampleRecord)) {
            SampleRecord sample;
            copy_out(tail_, &sample, sizeof sample);
            listener->faulted({static_cast<std::uintptr_t>(sample.address), static_cast<std::uintptr_t>(sample.instruction)});
          }
          break;
        case PERF_RECORD_SWITCH:
          if ((record.misc & PERF_RECORD_MISC_SWITCH_OUT) == 0) break;
          ++((record.misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT) != 0 ? events_.involuntary_switches
                                                                      : events_.voluntary_switches);
          break;
        case PERF_RECORD_MMAP2:
          if (listener != nullptr) tell_mapped(record.size, *listener);
          break;
        case PERF_RECORD_THROTTLE:
          ++events_.throttled;
          break;
        case PERF_RECORD_LOST: {
          LostRecord lost;
          copy_out(tail_, &lost, sizeof lost);
          events_.lost += lost.lost;
          // Told already if the ring was seen full.
          if (!was_full_) ++events_.overruns;
          was_full_ = true;
          complete = false;
          break;
        }
        default:
          break;
      }
      if (record.size == 0) {  // cannot happen; would never end
        complete = false;
        tail_ = head;
        break;
      }
      tail_ += record.size;
    }
    __atomic_store_n(&page_->data_tail, tail_, __ATOMIC_RELEASE);
    if (full) ++events_.overruns;
    was_full_ = full;
    return complete;
  }

  void tell_mapped(std::size_t bytes, WatchListener& listener) const noexcept {
    if (bytes <= sizeof(MappedRecord)) return;
    char name[k_mapped_name];
    const std::size_t length = bytes - sizeof(MappedRecord) < sizeof name ? bytes - sizeof(MappedRecord) : sizeof name;
    copy_out(tail_ + sizeof(MappedRecord), name, length);
    name[length - 1] = '\0';
    // "//anon", "[heap]" and their like are no files, nor is what nameless shared memory is called.
    if (name[0] != '/' || name[1] == '/' || std::strncmp(name, "/dev/zero", 9) == 0) return;
    MappedRecord record;
    copy_out(tail_, &record, sizeof record);
    const auto begin = static_cast<std::uintptr_t>(record.address);
    listener.mapped({begin, begin + static_cast<std::uintptr_t>(record.bytes), (record.protection & PROT_EXEC) != 0, name});
  }

  int file_ = -1;
  perf_event_mmap_page* page_ = nullptr;
  const unsigned char* ring_ = nullptr;
  std::size_t ring_bytes_ = 0;
  std::uint64_t tail_ = 0;
  WatchScope scope_ = WatchScope::none;
  bool was_full_ = false;  // at the poll before
  UsageEvents events_;
  std::uint32_t forks_ = 0;
};

}  // namespace

std::unique_ptr<Usage> make_usage() noexcept { return std::unique_ptr<Usage>(new (std::nothrow) LinuxUsage); }

}  // namespace rtpool::os
