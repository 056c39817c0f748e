// Fill history: what the copies of late wrote, destination by destination. A canvas that is filled image by image is as
// much work for the caches as one large copy, but no single call shows it; and a tile that is read as soon as it is
// written must stay in them. This decides between the two.
//
// The first: a *sweep* is the calls since one began where the sweep began. Copies into an array of at least
// stream_threshold() bytes go past the cache when its sweeps write that much, or when the first sweep has been through
// two places. The second cannot be seen from here, but it leaves a trace: streamed lines are in memory and nowhere else
// (130 ns on Zen 3), unless somebody has read them since (15 to 60 ns). So the time of some loads right after a streamed
// copy is compared with that of others, of the same copy, when the next one begins. One sight of a reader turns streaming
// off for this array and, until a look shows the contrary, makes it wary of others. A look tells nothing when the
// next copy begins a new sweep, or late: what else went on meanwhile may have touched the lines, and who takes that long
// over them gains little by finding them in the cache.
//
// Thread rule: any thread, several at once. All state is relaxed atomics: threads that fill one canvas share its history,
// a lost update costs a guess, never a wrong copy. Cost: some 30 ns a call, and 16 loads from memory (2.5 us) every
// k_probe_bytes. No kernel call beyond the clock. Nothing fails; forked children go on with a copy.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "copy/block.hpp"
#include "os/clock.hpp"

namespace rtpool::copy {

// Where a copy goes: the whole of the array that owns the memory. Every byte of it can be read as long as the call lasts.
struct Owner {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
};

class FillHistory {
 public:
  // Calls of fewer bytes are neither remembered nor streamed: they leave the caches as they are.
  static constexpr std::size_t k_min_bytes = std::size_t{64} << 10;
  // Streamed bytes between two looks for a reader.
  static constexpr std::size_t k_probe_bytes = std::size_t{4} << 20;
  // Times as long as the copy took: until then a look tells something.
  static constexpr os::Nanoseconds k_look_within = 32;
  // Bytes that go through the caches after a reader was seen, before streaming is tried again: the first time, then
  // twice as many each time.
  static constexpr std::size_t k_first_pause = std::size_t{256} << 20;

  // Times as much must be written into an array before its first try where the last look, anywhere, found a reader.
  static constexpr std::size_t k_wary = 4;

  // Nanoseconds a load of each of the lines, one after the other. Tests bring their own.
  static constexpr unsigned k_probe_lines = 8;
  using LoadCost = os::Nanoseconds (*)(const std::uintptr_t* lines) noexcept;
  static os::Nanoseconds measured_cost(const std::uintptr_t* lines) noexcept;

  explicit constexpr FillHistory(LoadCost load_cost = measured_cost) noexcept : load_cost_(load_cost) {}

  // Whether a copy of `bytes` into `block` should go past the caches. `threshold`: from how many bytes one copy does.
  bool begin(const Owner& owner, const Block& block, std::size_t bytes, std::size_t threshold) noexcept;
  // A copy that `begin` answered with true has been done, from `began` on.
  void streamed(const Owner& owner, const Block& block, std::size_t bytes, os::Nanoseconds began) noexcept;
  // Forgets everything.
  void clear() noexcept;

 private:
  static constexpr std::size_t k_entries = 8;
  template <class T>
  using Relaxed = std::atomic<T>;

  struct Entry {
    Relaxed<std::uintptr_t> owner{0};
    Relaxed<std::size_t> owner_bytes{0};
    Relaxed<std::uint64_t> used{0};  // when last, by clock_
    Relaxed<std::uintptr_t> sweep_begin{0};
    Relaxed<std::uintptr_t> last{0};
    Relaxed<std::size_t> sweep_bytes{0};
    Relaxed<std::size_t> whole_sweep_bytes{0};  // of the sweep before; 0 in the first
    Relaxed<std::uint32_t> places{0};           // of this sweep
    Relaxed<std::size_t> pause{0};              // bytes still to go through the caches
    Relaxed<std::size_t> next_pause{k_first_pause};
    Relaxed<std::size_t> unseen{0};  // streamed since a probe was laid
    // The probe: places of a streamed copy that nobody has read yet. The last store of laying one, the first of taking it.
    Relaxed<os::Nanoseconds> good_until{0};
    Relaxed<std::uint32_t> cost{0};  // ns a load where nobody has read; 0: none laid
    Relaxed<std::uintptr_t> line[k_probe_lines]{};
  };

  Entry& entry_of(const Owner& owner) noexcept;
  enum class Look : std::uint8_t { tells_nothing, unread, read };
  // Takes the probe up, and tells what it says.
  Look look(Entry& entry, const Owner& owner) noexcept;

  LoadCost load_cost_;
  Entry entries_[k_entries];
  Relaxed<std::uint64_t> clock_{0};
  Relaxed<bool> readers_about_{false};
};

// The one of this process.
FillHistory& fill_history() noexcept;

}  // namespace rtpool::copy
