// Does again what a trace says: the same sizes in the same threads, without the program.
//
// Each block has a slot; a slot's operations happen in the order in which they were recorded, whichever threads they belong
// to, so a free by another thread waits for its allocation. Different slots' operations keep that order to within
// `k_window` operations. The operation that was recorded first among those left never waits, so there is always one that goes on.
//
//   RP-1  a thread's `next` is the order of an operation that it has not done yet, or k_done
//   RP-2  a slot's `turn` is how many of its operations are done; its block is touched by the one whose turn it is
//
// Thread rule: one thread opens, runs passes and closes. Cost: an operation some ns beside the target's; the kernel is entered
// where a thread has to wait, and by `open` and `close`. Failure: an errno value.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"
#include "os/helper_thread.hpp"
#include "os/memory.hpp"
#include "replay/target.hpp"

namespace rtpool::replay {

// A realloc is two operations of one thread, one behind the other: from a slot, to a slot (which may be the same).
enum class Operation : std::uint8_t { allocate, allocate_zeroed, release, resize_from, resize_to };
inline constexpr unsigned k_operation_bits = 3;
inline constexpr std::size_t k_most_threads = 1024;
inline constexpr std::uint64_t k_window = 1024;

// Columns, a row an operation. Threads' rows lie one behind the other. The memory is the caller's and stays until `close`.
struct Script {
  const std::uint64_t* what = nullptr;    // size << k_operation_bits | Operation
  const std::uint32_t* slot = nullptr;
  const std::uint32_t* turn = nullptr;    // operations on the same slot before this one
  const std::uint32_t* order = nullptr;   // among the operations of all threads; grows within a thread
  std::size_t count = 0;
  std::uint32_t slots = 0;
  const std::uint64_t* begins = nullptr;  // each thread's first row, and `count`
  std::size_t threads = 0;
};

struct Pass {
  os::Nanoseconds took = 0;
  std::uint64_t minor_faults = 0;   // of the process
  std::uint64_t major_faults = 0;
  std::uint64_t resident_bytes = 0; // of the process, when the last operation was done
  std::uint64_t kept_bytes = 0;     // the same, when what was left alive has been freed too
  std::uint64_t failures = 0;       // allocations answered with nullptr; their frees are left out
};

class Replayer {
 public:
  Replayer() = default;
  Replayer(const Replayer&) = delete;
  Replayer& operator=(const Replayer&) = delete;
  ~Replayer() { close(); }

  // Makes the slots ready and resident, and starts all threads but the first, which is the caller's. EINVAL: rows that fit
  // nothing.
  int open(const Script& script, os::Memory& memory = os::memory()) noexcept;
  // All operations once, then frees what is left alive. `write`: a byte in each page of what is allocated.
  void pass(Target& target, bool write, Pass* out) noexcept;
  void close() noexcept;

 private:
  static constexpr std::uint64_t k_done = UINT64_MAX;
  static constexpr std::uint64_t k_publish_every = 32;
  static constexpr unsigned k_spins = 2000;

  struct Slot {
    void* block = nullptr;
    std::atomic<std::uint32_t> turn{0};
  };
  struct alignas(64) Worker {
    std::atomic<std::uint64_t> next{k_done};  // RP-1
    Replayer* replayer = nullptr;
    std::size_t number = 0;
    std::uint64_t failures = 0;
    os::HelperThread thread;
  };

  static void work(void* worker) noexcept;
  void run(Worker& worker) noexcept;
  bool do_operation(std::size_t row, void** carried) noexcept;
  void write_pages(void* block, std::size_t size) const noexcept;
  void publish(Worker& worker, std::uint64_t next) noexcept;
  // The order up to which `worker` may go on, as far as the others have come.
  std::uint64_t allowed(const Worker& worker) const noexcept;
  template <class Condition>
  void wait_until(Condition&& condition) noexcept;
  void wake() noexcept;
  void release_rest() noexcept;

  Script script_;
  os::Memory* memory_ = nullptr;
  Slot* slots_ = nullptr;
  Worker* workers_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t started_ = 0;
  std::size_t page_ = 0;
  Target* target_ = nullptr;
  bool write_ = false;
  std::atomic<std::uint32_t> pass_{0};
  std::atomic<bool> over_{false};
  std::atomic<std::uint32_t> running_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<std::uint32_t> epoch_{0};  // changes when something happened that a sleeper may wait for
};

}  // namespace rtpool::replay
