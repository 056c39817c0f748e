// Figures, recovery on demand, and the check of the invariants.
#include <cstdint>
#include <cstdio>
#include <mutex>

#include "base/bits.hpp"
#include "shared/registry.hpp"
#include "shared/section.hpp"

namespace rtpool::shared {
namespace {

pool::CheckResult broken(const char* invariant, const char* what, std::uint64_t where) noexcept {
  pool::CheckResult result;
  result.ok = false;
  std::snprintf(result.invariant, sizeof result.invariant, "%s", invariant);
  std::snprintf(result.text, sizeof result.text, "%s (at %llu)", what, static_cast<unsigned long long>(where));
  return result;
}

constexpr std::size_t k_discard_unit = std::size_t{2} << 20;
constexpr unsigned k_closing_tries = 3;

}  // namespace

Stats SharedPool::stats() noexcept {
  Stats stats;
  pool::Stats& common = stats.common;
  const std::lock_guard guard(mutex_);
  if (ready()) {
    publish_counts();
    const HeapCounts& counts = heap_->counts();
    stats.own_bytes = counts.current_bytes - counts.recorded_bytes + counts.borrowed_bytes;
    stats.own_count = counts.current_count - counts.recorded_count + counts.borrowed_count;
    common.peak_bytes = counts.peak_bytes;
    common.peak_count = counts.peak_count;
    common.total_bytes = counts.total_bytes;
    common.total_count = counts.total_count;
    common.growths = counts.claims;
    common.misses = misses_.load();
    common.failures = failures_.load();
    common.fallbacks = fallbacks_.load();
    const std::uint64_t served_by_misses = common.misses - common.failures - common.fallbacks;
    common.hits = common.total_count > served_by_misses ? common.total_count - served_by_misses : 0;
  }
  common.fallback_count = fallback_table_.count();
  common.misuses = misuses_.load();
  common.remote_frees = returned_;
  common.kernel_calls = kernel_calls_.load();
  common.returned_bytes = given_back_.load();
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    const ProcessSlot& entry = segment_.process(slot);
    const Life life = LifeWord::state(entry.life.load());
    if (life == Life::free) continue;
    common.current_bytes += entry.current_bytes.load();
    common.current_count += entry.current_count.load();
    common.requested_bytes += entry.requested_bytes.load();
  }
  const Records::Sums shared = records_.sums();
  common.current_bytes += shared.left_bytes;
  common.requested_bytes += shared.left_bytes;
  common.current_count += shared.left;
  stats.shared_count = shared.alive;
  stats.in_flight_count = shared.tickets;
  stats.processes = processes_.count_alive();
  stats.recovered_processes = segment_.header().recovered_processes.load();
  common.capacity_bytes = geometry().data_bytes;
  common.largest_free_bytes = std::uint64_t{granules_.longest_free()} << geometry().granule_shift;
  common.resident_bytes = segment_.held_data();
  return stats;
}

std::size_t SharedPool::absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept {
  std::size_t count = 0;
  const auto add = [&](const char* data, std::size_t begin, std::size_t end) {
    const auto base = reinterpret_cast<std::uintptr_t>(data);
    if (data != nullptr && begin != end && count != capacity) out[count++] = {base + begin, base + end};
  };
  for_each([&](SharedPool& pool) {
    const Segment& segment = pool.segment_;
    const std::size_t bytes = base::align_down(pool.geometry().data_bytes, k_discard_unit);
    std::size_t begin = 0;
    for (std::size_t at = 0; at <= bytes; at += k_discard_unit) {
      std::size_t resident = 0;
      const bool absent = at != bytes && segment.os().resident(segment.data() + at, k_discard_unit, &resident) == 0 && resident == 0;
      if (absent) continue;
      add(segment.data(), begin, at);
      add(segment.read_only_data(), begin, at);
      begin = at + k_discard_unit;
    }
  });
  return count;
}

void SharedPool::visit_all(void (*visit)(SharedPool& pool, void* context) noexcept, void* context) noexcept {
  const Registry::Lock lock;
  for (SharedPool* pool = Registry::first(); pool != nullptr; pool = Registry::next(pool)) visit(*pool, context);
}

void SharedPool::reset_peak() noexcept {
  const std::lock_guard guard(mutex_);
  if (ready()) heap_->reset_peak();
}

bool SharedPool::recover() noexcept {
  {
    const std::lock_guard guard(mutex_);
    if (!ready()) return false;
  }
  const bool recovered = recovery_.run(tenancy_);
  Section section(*this);
  flush_deferred();
  take_back_all_closed();
  publish_counts();
  return recovered;
}

std::size_t SharedPool::trim() noexcept {
  (void)recover();
  Section section(*this);
  if (!ready()) return 0;
  (void)heap_->trim();
  // A file in /dev/shm keeps its memory: had somebody else taken it meanwhile, the next store would be a bus error.
  if (name()[0] != '\0' || segment_.made().page > k_page) return 0;
  const Geometry& g = geometry();
  const auto unit = static_cast<std::uint32_t>(base::divide_up(k_discard_unit, g.granule_bytes()));
  const std::size_t bytes = std::size_t{unit} << g.granule_shift;
  const std::size_t page = segment_.os().page_size();
  std::size_t given = 0;
  // Each piece is taken while it is given back, so that nobody fills it meanwhile.
  for (std::uint32_t first = 0; (first = granules_.claim_above(tenancy_, unit, first)) != k_none; first += unit) {
    std::size_t resident = 0;
    // Pages of the kernel that others hold a part of stay.
    const std::uint64_t start = g.data_offset + (std::uint64_t{first} << g.granule_shift);
    const std::uint64_t begin = base::align_up(start, page);
    const std::uint64_t end = base::align_down(start + bytes, page);
    if (segment_.os().resident(segment_.base() + begin, end - begin, &resident) == 0 && resident != 0 &&
        segment_.os().discard(segment_.fd(), begin, end - begin) == 0) {
      given += resident;
    }
    kernel_calls_.fetch_add(2, std::memory_order_relaxed);
    granules_.release(tenancy_, first, unit);
  }
  given_back_.fetch_add(given, std::memory_order_relaxed);
  return given;
}

pool::CheckResult SharedPool::check() noexcept {
  if (!segment_.intact()) return broken("SH-1", "the segment's header was overwritten", 0);
  (void)recover();
  const std::lock_guard guard(mutex_);
  if (!ready()) return {};
  const Geometry& g = geometry();
  for (std::uint32_t i = 0; i < g.granules; ++i) {
    const std::uint64_t word = segment_.granule(i).load();
    if (word == 0) continue;
    const Tenancy tenancy = GranuleWord::tenancy(word);
    const bool known = tenancy && tenancy.slot < k_processes &&
                       LifeWord::generation(segment_.process(tenancy.slot).life.load()) >= tenancy.generation;
    if (!known) return broken("SH-2", "a granule belongs to a process that never was", i);
    if (GranuleWord::length(word) > g.granules - i) return broken("SH-2", "a run reaches beyond the segment", i);
  }
  for (std::uint32_t i = 0; i < g.records; ++i) {
    const Record& record = segment_.record(i);
    const std::uint64_t state = record.state.load();
    if (!StateWord::valid(state)) return broken("SH-3", "a record is in no known state", i);
    if (StateWord::state(state) != RecordState::alive) continue;
    BlockRange range;
    bool whole = records_.range_of(i, &range);
    for (std::uint64_t at = range.offset >> g.granule_shift; whole && at <= (range.offset + range.bytes - 1) >> g.granule_shift; ++at) {
      whole = segment_.granule(static_cast<std::uint32_t>(at)).load() != 0;
    }
    // Nobody is seen to hold it while its last holder is about to close it or was killed there, and, as its words are read
    // one by one, while a handle becomes a hold. Closing it, as anyone may, ends the one and leaves the other alone.
    bool held = !records_.nobody_holds(i);
    for (unsigned tries = 0; tries < k_closing_tries && !held && record.state.load() == state; ++tries) {
      records_.try_close(i);
      held = !records_.nobody_holds(i);
    }
    if (record.state.load() != state) continue;  // it changed meanwhile
    if (!whole) return broken("SH-3", "a shared block lies outside the data or in free memory", i);
    if (!held) return broken("SH-4", "a block nobody holds is not free", i);
  }
  const char* id = "";
  const std::uint32_t at = heap_->check(&id);
  if (at != k_none) return broken(id, "this process's part of the pool is damaged", at);
  return {};
}

}  // namespace rtpool::shared
