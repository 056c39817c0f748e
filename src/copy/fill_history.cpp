#include "copy/fill_history.hpp"

#include "base/bits.hpp"
#include "copy/kernel.hpp"

namespace rtpool::copy {
namespace {

constexpr auto k_relaxed = std::memory_order_relaxed;
// A load from memory takes less than this; what took longer was interrupted.
constexpr os::Nanoseconds k_longest_load = 1000;

template <class T>
T get(const std::atomic<T>& value) noexcept {
  return value.load(k_relaxed);
}
template <class T>
void set(std::atomic<T>& value, T to) noexcept {
  value.store(to, k_relaxed);
}

// The address of a whole line that a streamed copy of the block wrote, a different one for each `seed`.
std::uintptr_t some_line(const Block& block, std::uint64_t seed) noexcept {
  std::uint64_t random = (seed + 1) * 0x9E3779B97F4A7C15U;
  auto address = reinterpret_cast<std::uintptr_t>(block.dst);
  for (unsigned i = 0; i < block.dimensions; ++i) {
    address += random % block.axes[i].count * block.axes[i].dst_step;
    random = (random ^ (random >> 29)) * 0xBF58476D1CE4E5B9U;
  }
  // Rows that are streamed have k_min_stream_row bytes, so that between head and tail there are lines.
  const std::size_t lines = block.row_bytes / k_line_bytes - 1;
  return base::align_up(address, k_line_bytes) + (random >> 32) % lines * k_line_bytes;
}

// Kept from the compiler, which would see that the loads do not need one another.
volatile std::uintptr_t g_nothing = 0;

}  // namespace

// Each load is begun when the one before it has arrived. What other threads write there meanwhile does not matter: the values
// are not used.
__attribute__((no_sanitize("thread", "address"))) os::Nanoseconds FillHistory::measured_cost(const std::uintptr_t* lines) noexcept {
  const std::uintptr_t nothing = g_nothing;
  std::uintptr_t chain = 0;
  const os::Nanoseconds begin = os::clock().now();
  for (unsigned i = 0; i < k_probe_lines; ++i) {
    chain = *reinterpret_cast<const volatile std::uintptr_t*>(lines[i] + chain) & nothing;
  }
  return (os::clock().now() - begin + static_cast<os::Nanoseconds>(chain)) / k_probe_lines;
}

FillHistory::Entry& FillHistory::entry_of(const Owner& owner) noexcept {
  const std::uint64_t now = clock_.fetch_add(1, k_relaxed);
  Entry* oldest = &entries_[0];
  for (Entry& entry : entries_) {
    if (get(entry.owner) == owner.begin && get(entry.owner_bytes) == owner.bytes) {
      set(entry.used, now);
      return entry;
    }
    if (get(entry.used) < get(oldest->used)) oldest = &entry;
  }
  set(oldest->cost, std::uint32_t{0});
  set(oldest->owner, owner.begin);
  set(oldest->owner_bytes, owner.bytes);
  set(oldest->used, now);
  set(oldest->sweep_begin, std::uintptr_t{0});
  set(oldest->last, std::uintptr_t{0});
  set(oldest->sweep_bytes, std::size_t{0});
  set(oldest->whole_sweep_bytes, std::size_t{0});
  set(oldest->places, std::uint32_t{0});
  set(oldest->pause, std::size_t{0});
  set(oldest->next_pause, k_first_pause);
  set(oldest->unseen, std::size_t{0});
  return *oldest;
}

FillHistory::Look FillHistory::look(Entry& entry, const Owner& owner) noexcept {
  const std::uint32_t cost = entry.cost.exchange(0, std::memory_order_acquire);
  if (cost == 0 || os::clock().now() > get(entry.good_until)) return Look::tells_nothing;
  std::uintptr_t lines[k_probe_lines];
  for (unsigned i = 0; i < k_probe_lines; ++i) {
    lines[i] = get(entry.line[i]);
    // Another thread may have given the entry to another array meanwhile: nothing is read outside of the caller's.
    if (lines[i] - owner.begin >= owner.bytes) return Look::tells_nothing;
  }
  return 3 * load_cost_(lines) < 2 * static_cast<os::Nanoseconds>(cost) ? Look::read : Look::unread;
}

bool FillHistory::begin(const Owner& owner, const Block& block, std::size_t bytes, std::size_t threshold) noexcept {
  if (bytes < k_min_bytes || owner.bytes < threshold || block.row_bytes < k_min_stream_row) return false;
  Entry& entry = entry_of(owner);
  const auto start = reinterpret_cast<std::uintptr_t>(block.dst);
  const bool comes_round = start == get(entry.sweep_begin);
  if (const Look seen = look(entry, owner); seen != Look::tells_nothing && !comes_round) {
    set(readers_about_, seen == Look::read);
    if (seen == Look::read) {
      set(entry.pause, get(entry.next_pause));
      set(entry.next_pause, get(entry.next_pause) * 2);
    }
  }
  // A sweep also ends when it must have come round without passing its beginning.
  const std::size_t swept = get(entry.sweep_bytes);
  if (comes_round || swept >= 2 * owner.bytes) {
    set(entry.whole_sweep_bytes, swept);
    set(entry.sweep_bytes, std::size_t{0});
    set(entry.places, std::uint32_t{0});
    set(entry.sweep_begin, start);
  }
  if (get(entry.sweep_begin) == 0) set(entry.sweep_begin, start);
  if (start != get(entry.last)) {
    set(entry.sweep_bytes, get(entry.sweep_bytes) + bytes);
    set(entry.places, get(entry.places) + 1);
  }
  set(entry.last, start);
  if (const std::size_t pause = get(entry.pause); pause != 0) {
    set(entry.pause, pause > bytes ? pause - bytes : 0);
    return false;
  }
  const bool wary = get(readers_about_);
  const std::size_t enough = wary ? k_wary * threshold : threshold;
  if (get(entry.sweep_bytes) >= enough || get(entry.whole_sweep_bytes) >= enough) return true;
  return !wary && get(entry.whole_sweep_bytes) == 0 && get(entry.places) > 2;
}

void FillHistory::streamed(const Owner& owner, const Block& block, std::size_t bytes, os::Nanoseconds began) noexcept {
  const os::Nanoseconds ended = os::clock().now();
  Entry& entry = entry_of(owner);
  const std::size_t unseen = get(entry.unseen) + bytes;
  set(entry.unseen, unseen);
  if (unseen < k_probe_bytes) return;
  // Two times, and the shorter counts: an interrupted one would make a reader of everybody.
  std::uintptr_t lines[k_probe_lines];
  os::Nanoseconds cost = k_longest_load;
  std::uint64_t seed = 0;
  for (int turn = 0; turn < 2; ++turn) {
    for (std::uintptr_t& line : lines) line = some_line(block, ++seed);
    const os::Nanoseconds taken = load_cost_(lines);
    if (taken < cost) cost = taken;
  }
  if (cost == k_longest_load) return;
  set(entry.unseen, std::size_t{0});
  for (std::atomic<std::uintptr_t>& line : entry.line) set(line, some_line(block, ++seed));
  set(entry.good_until, ended + k_look_within * (ended - began));
  entry.cost.store(static_cast<std::uint32_t>(cost), std::memory_order_release);
}

void FillHistory::clear() noexcept {
  for (Entry& entry : entries_) {
    set(entry.owner, std::uintptr_t{0});
    set(entry.owner_bytes, std::size_t{0});
    set(entry.used, std::uint64_t{0});
    set(entry.cost, std::uint32_t{0});
  }
  set(readers_about_, false);
}

FillHistory& fill_history() noexcept {
  static constinit FillHistory history;
  return history;
}

}  // namespace rtpool::copy
