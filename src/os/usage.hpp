// The OS contract for what a thread suffers: page faults and context switches.
//
// Two sources. `read` asks the kernel for the exact counters (getrusage; 100 to 400 ns). A *watch* (perf_event) lets the
// kernel write every fault and switch of the thread into a ring of memory that this process maps; `poll` counts them
// with a few loads and no kernel call, so that a loop can tell iteration by iteration what happened for ~10 ns. A watch
// is often refused (containers, perf_event_paranoid > 2); then callers read where it matters and say so.
//
// Thread rule: an instance belongs to the thread that calls `watch`; `read` answers for the calling thread.
// Tests replace this class by a fake (tests/cpp/fake_usage.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace rtpool::os {

struct UsageCounts {
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
  std::uint64_t voluntary_switches = 0;
  std::uint64_t involuntary_switches = 0;
};

// Events since the watch began. `faults` may stay behind the truth when the ring ran over or the kernel throttled the
// watch, but never fails to move when there was one: read the exact figure then.
struct UsageEvents {
  std::uint64_t faults = 0;
  std::uint64_t voluntary_switches = 0;
  std::uint64_t involuntary_switches = 0;
  std::uint64_t overruns = 0;   // times the ring ran over: what came then, until the next poll, is lost
  std::uint64_t lost = 0;       // how many records, as far as the kernel has told: it does with the first one after them
  std::uint64_t throttled = 0;  // times the kernel stopped the watch until the next tick
};

// A page fault of the watched thread.
struct FaultSample {
  std::uintptr_t address = 0;      // what was touched
  std::uintptr_t instruction = 0;  // that touched it; an address of the kernel's where it did so on the thread's behalf
};

// A file that the watched thread mapped. `name` is cut at k_mapped_name - 1 and valid during the call only.
inline constexpr std::size_t k_mapped_name = 256;
struct MappedFile {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool executable = false;
  const char* name = "";
};

// Is told by `poll`, in the order in which things happened.
class WatchListener {
 public:
  virtual void faulted(const FaultSample& sample) noexcept = 0;
  virtual void mapped(const MappedFile& file) noexcept = 0;

 protected:
  ~WatchListener() = default;
};

// `user`: faults that the kernel takes on the thread's behalf (a read(2) into a fresh buffer) are not seen, as
// perf_event_paranoid = 2, the kernel's default, has it for ordinary users.
enum class WatchScope : std::uint8_t { none, user, all };

class Usage {
 public:
  Usage() = default;
  Usage(const Usage&) = delete;
  Usage& operator=(const Usage&) = delete;
  virtual ~Usage() = default;

  // Counters of the calling thread since it began. One kernel call. errno value.
  virtual int read(UsageCounts* out) noexcept = 0;
  // Begins a watch of the calling thread. errno value: EACCES or EPERM by perf_event_paranoid or a container's filter,
  // ENOSYS without perf_event, EMFILE. Watching already: 0.
  virtual int watch() noexcept = 0;
  virtual void unwatch() noexcept = 0;
  // Fills `out` without a kernel call and tells `listener`, which may be nullptr, what is new. False if there is no watch,
  // or if the ring ran over since the last poll (the counts are then too low). A forked child has no watch. The kernel
  // sees no fault that it takes while it makes memory resident itself (mlock, MADV_POPULATE_WRITE), though `read` does.
  virtual bool poll(UsageEvents* out, WatchListener* listener) noexcept = 0;
  // What the watch sees, or saw if it is over.
  virtual WatchScope scope() const noexcept = 0;
};

// A new instance for the calling thread, speaking to the kernel. nullptr when there is no memory.
std::unique_ptr<Usage> make_usage() noexcept;

}  // namespace rtpool::os
