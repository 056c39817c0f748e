#include "pool/debug_layer.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "base/watch.hpp"
#include "blocks/size_class.hpp"
#include "pool/pool_impl.hpp"

namespace rtpool::pool {
namespace {

using LockGuard = std::lock_guard<os::PriorityLock>;

constexpr std::size_t k_zone = 64;
constexpr unsigned k_most_tries = 64;

std::atomic<CallSite> g_call_site{nullptr};

// What an ordinary pool would grant: plans learned in a debug pool are for those.
std::size_t plain_size(std::size_t size) noexcept {
  return size <= blocks::k_largest_small ? blocks::class_bytes(blocks::class_of(size)) : base::align_up(size, os::k_page_size);
}

}  // namespace

DebugLayer::DebugLayer(PoolImpl& pool) noexcept
    : pool_(pool),
      watched_(pool.options_.watch && base::watched()),
      page_(pool.memory_->page_size()),
      freed_byte_(pool.options_.zero_on_free ? 0 : k_freed_byte),
      quarantine_bytes_(std::min(k_quarantine_bytes, pool.limit_ / 4)) {}

void DebugLayer::set_call_site(CallSite call_site) noexcept { g_call_site.store(call_site, std::memory_order_release); }

void DebugLayer::find_place(Place* place) noexcept {
  const CallSite call_site = g_call_site.load(std::memory_order_acquire);
  if (call_site != nullptr) place->length = call_site(place->text, sizeof place->text);
}

DebugLayer::Shape DebugLayer::shape_of(std::size_t size) const noexcept {
  if (size <= blocks::k_largest_small) return {k_zone, k_zone + base::align_up(size, k_zone) + k_zone, false};
  // Wherever a page of the kernel begins in it, there is room for one after the block and for a page of ours before it.
  return {os::k_page_size, base::align_up(size, os::k_page_size) + 2 * page_, true};
}

char* DebugLayer::guard_page(char* raw_end) const noexcept {
  return raw_end - reinterpret_cast<std::uintptr_t>(raw_end) % page_ - page_;
}

char* DebugLayer::readable_end(const DebugBlock& record) const noexcept {
  if (!record.guarded) return record.raw_end();
  return record.closed ? closed_begin(record) : guard_page(record.raw_end());
}

char* DebugLayer::closed_begin(const DebugBlock& record) const noexcept {
  const auto past = reinterpret_cast<std::uintptr_t>(record.block) % page_;
  return record.block + (past == 0 ? 0 : page_ - past);
}

DebugLayer::Damage DebugLayer::look(const char* begin, const char* end, unsigned char expected) noexcept {
  const auto value = static_cast<char>(expected);
  const auto count = static_cast<std::size_t>(end - begin);
  // All bytes are the same if each is as the one before it: one pass of the C library's fastest loop.
  if (count == 0 || (*begin == value && std::memcmp(begin, begin + 1, count - 1) == 0)) return {};
  Damage damage;
  for (const char* at = begin; at != end; ++at) {
    if (*at == value) continue;
    if (damage.first == nullptr) damage.first = at;
    damage.last = at;
  }
  return damage;
}

void* DebugLayer::allocate(std::size_t size, bool zeroed) noexcept {
  if (size == 0) size = 1;
  Place place;
  find_place(&place);
  Shape shape;
  PoolImpl::Told told;
  if (size <= pool_.largest_request()) {
    shape = shape_of(size);
    PoolImpl::Served served = pool_.climb(shape.total, zeroed, &told);
    // Once more without a quarantine; others may fill it again meanwhile, and take what has left it.
    bool filled = true;
    for (unsigned tries = 0; served.block == nullptr && filled && tries != k_most_tries; ++tries) {
      const std::uint64_t before = quarantined_.load(std::memory_order_acquire);
      empty_quarantine();
      served = pool_.climb(shape.total, zeroed, &told);
      filled = quarantined_.load(std::memory_order_acquire) != before;
    }
    if (served.block != nullptr) {
      shape.total = pool_.find_block(served.block).granted;
      return hand_out(static_cast<char*>(served.block), shape, size, served.zero, zeroed, false, place);
    }
  }
  if (size > SIZE_MAX / 2) return pool_.refuse(size, zeroed, size, 0);
  // The fallback aligns to less than a pool does.
  shape = {k_zone, k_zone + base::align_up(size, k_zone) + 2 * k_zone, false};
  void* const raw = pool_.refuse(shape.total, false, size, told.error);
  if (raw == nullptr) return nullptr;
  shape.front += (k_zone - reinterpret_cast<std::uintptr_t>(raw) % k_zone) % k_zone;
  return hand_out(static_cast<char*>(raw), shape, size, false, zeroed, true, place);
}

void* DebugLayer::hand_out(char* raw, const Shape& shape, std::size_t size, bool zero, bool wants_zero, bool fallback,
                           const Place& place) noexcept {
  char* const raw_end = raw + shape.total;
  char* const block = shape.guarded ? guard_page(raw_end) - base::align_up(size, os::k_page_size) : raw + shape.front;
  if (watched_ && !fallback) base::watch_open(raw, shape.total);
  const bool guarded = shape.guarded && guard(guard_page(raw_end));
  char* const zone_end = guarded ? guard_page(raw_end) : raw_end;
  std::memset(raw, k_red_byte, static_cast<std::size_t>(block - raw));
  std::memset(block + size, k_red_byte, static_cast<std::size_t>(zone_end - (block + size)));
  if (!wants_zero) {
    std::memset(block, k_fresh_byte, size);
  } else if (!zero) {
    std::memset(block, 0, size);
  }
  if (watched_ && !fallback) {
    base::watch_close(raw, static_cast<std::size_t>(block - raw));
    base::watch_close(block + size, static_cast<std::size_t>(raw_end - (block + size)));
    base::watch_allocated(block, size, wants_zero);
  }
  DebugBlock* record = nullptr;
  {
    const LockGuard guard(lock_);
    record = blocks_.add(block);
    if (record != nullptr) {
      record->raw = raw;
      record->size = size;
      record->total = shape.total;
      record->made = os::clock().now();
      record->made_at = sites_.number_of(place.text, place.length);
      record->fallback = fallback;
      record->guarded = guarded;
      live_count_.fetch_add(1, std::memory_order_relaxed);
      if (!fallback) {
        requested_bytes_ += size;
        peak_count_ = std::max(peak_count_, ++current_count_);
        peak_bytes_ = std::max(peak_bytes_, current_bytes_ += shape.total);
      }
    }
  }
  if (record == nullptr) {  // no memory for the record
    pool_.failures_.fetch_add(1, std::memory_order_relaxed);
    DebugBlock unknown;
    unknown.raw = raw;
    unknown.block = block;
    unknown.size = size;
    unknown.total = shape.total;
    unknown.guarded = guarded;
    if (!open(unknown)) return nullptr;
    if (watched_ && !fallback) {
      base::watch_freed(block, size);
      base::watch_open(raw, shape.total);
    }
    pool_.give_back(raw);
    return nullptr;
  }
  if (pool_.is_learning_.load(std::memory_order_relaxed)) pool_.learn_allocation(plain_size(size), size, wants_zero);
  return block;
}

bool DebugLayer::guard(char* page) noexcept {
  pool_.store_.count_kernel_call();
  const int error = pool_.memory_->guard(page, page_);
  if (error == 0) return true;
  if (guards_refused_.exchange(true, std::memory_order_relaxed)) return false;
  char name[k_name_capacity + 40];
  name_pool(name, sizeof name);
  base::report_line("%s: the kernel refuses a guard page (errno %d): overruns of such blocks are found when they are freed", name, error);
  return false;
}

bool DebugLayer::open(DebugBlock& record) noexcept {
  if (!record.guarded) return true;
  char* const page = guard_page(record.raw_end());
  char* const begin = readable_end(record);
  pool_.store_.count_kernel_call();
  if (pool_.memory_->commit(begin, static_cast<std::size_t>(page + page_ - begin)) != 0) return false;
  record.guarded = record.closed = false;
  const auto rest = static_cast<std::size_t>(record.raw_end() - page);
  if (watched_) base::watch_open(page, rest);
  std::memset(page, k_red_byte, rest);
  return true;
}

DebugBlock* DebugLayer::begin_free(void* block, const char* call, const Place& place) noexcept {
  const LockGuard guard(lock_);
  DebugBlock* const record = blocks_.find(block);
  if (record == nullptr || record->state != DebugState::live) {
    report_misuse(block, record != nullptr ? record : blocks_.near(block), call, place);
    return nullptr;
  }
  record->state = DebugState::freeing;
  record->freed_at = sites_.number_of(place.text, place.length);
  live_count_.fetch_sub(1, std::memory_order_relaxed);
  if (!record->fallback) {
    --current_count_;
    current_bytes_ -= record->total;
    requested_bytes_ -= record->size;
  }
  return record;
}

void DebugLayer::release(void* block) noexcept {
  Place place;
  find_place(&place);
  free_block(block, "free", place);
}

void DebugLayer::free_block(void* block, const char* call, const Place& place) noexcept {
  const os::Gate::Inside inside(gate_);
  DebugBlock* const record = begin_free(block, call, place);
  if (record != nullptr) finish_free(*record);
}

void DebugLayer::compare_size(const void* block, std::size_t claimed) noexcept {
  Place place;
  find_place(&place);
  const LockGuard guard(lock_);
  const DebugBlock* const record = blocks_.find(block);
  if (record == nullptr || record->state != DebugState::live || record->size == claimed) return;
  // What is aligned to more than 64 bytes was asked for as the smallest large block.
  if (record->size == blocks::k_largest_small + 1 && claimed < record->size) return;
  report_size(*record, claimed, place);
}

void DebugLayer::finish_free(DebugBlock& record) noexcept {
  if (pool_.is_learning_.load(std::memory_order_relaxed)) pool_.learn_release(plain_size(record.size));
  check_block(record, Found::while_freed, nullptr);
  if (record.fallback) return retire(record);
  std::memset(record.block, freed_byte_, record.size);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (watched_) base::watch_freed(record.block, record.size);
  if (pool_.options_.strict && record.guarded) {
    char* const begin = closed_begin(record);
    char* const page = guard_page(record.raw_end());
    if (begin < page) {
      pool_.store_.count_kernel_call();
      record.closed = pool_.memory_->guard(begin, static_cast<std::size_t>(page - begin)) == 0;
    }
  }
  {
    const LockGuard guard(lock_);
    record.state = DebugState::quarantined;
    record.next = nullptr;
    (newest_ != nullptr ? newest_->next : oldest_) = &record;
    newest_ = &record;
    ++waiting_count_;
    waiting_bytes_ += record.total;
    quarantined_.fetch_add(1, std::memory_order_release);
  }
  while (DebugBlock* const leaving = take_oldest(false)) leave_quarantine(*leaving);
}

DebugBlock* DebugLayer::take_oldest(bool all) noexcept {
  const LockGuard guard(lock_);
  const bool full = waiting_count_ > k_quarantine_blocks || (waiting_bytes_ > quarantine_bytes_ && waiting_count_ > 1);
  if (oldest_ == nullptr || (!all && !full)) return nullptr;
  DebugBlock* const record = oldest_;
  oldest_ = record->next;
  if (oldest_ == nullptr) newest_ = nullptr;
  --waiting_count_;
  waiting_bytes_ -= record->total;
  record->state = DebugState::freeing;
  retiring_.fetch_add(1, std::memory_order_relaxed);
  return record;
}

void DebugLayer::empty_quarantine() noexcept {
  constexpr os::Nanoseconds k_pause = 50'000;
  constexpr unsigned k_most_waits = 10'000;
  for (bool some = true; some;) {
    const os::Gate::Inside inside(gate_);
    DebugBlock* const leaving = take_oldest(true);
    some = leaving != nullptr;
    if (some) leave_quarantine(*leaving);
  }
  // What other threads have taken out is free when they are done with it.
  for (unsigned waits = 0; retiring_.load(std::memory_order_acquire) != 0 && waits != k_most_waits; ++waits) {
    (void)os::clock().sleep_until(os::clock().now() + k_pause);
  }
}

void DebugLayer::leave_quarantine(DebugBlock& record) noexcept {
  retire(record);
  retiring_.fetch_sub(1, std::memory_order_release);
}

void DebugLayer::retire(DebugBlock& record) noexcept {
  char* const raw = record.raw;
  if (!record.fallback) {
    if (!open(record)) return;  // stays freed, and its memory out of use
    if (watched_) base::watch_open(raw, record.total);
    check_block(record, Found::while_recycled, nullptr);
  }
  {
    const LockGuard guard(lock_);
    blocks_.remove(record);
  }
  pool_.give_back(raw);
}

// Live, or the calling thread's own. False: damaged; told to the user once, and to `result` always.
bool DebugLayer::check_block(DebugBlock& record, Found found, CheckResult* result) noexcept {
  const bool watched = watched_ && !record.fallback;
  // What is closed nobody could write.
  const char* const readable = readable_end(record);
  const char* const zone_end = std::max(static_cast<const char*>(record.end()), readable);
  const char* const body_end = std::min(static_cast<const char*>(record.end()), readable);
  const bool waited = record.state == DebugState::quarantined || found == Found::while_recycled;
  if (watched) {
    base::watch_open(record.raw, static_cast<std::size_t>(record.block - record.raw));
    base::watch_open(record.end(), static_cast<std::size_t>(zone_end - record.end()));
    if (waited) base::watch_open(record.block, static_cast<std::size_t>(body_end - record.block));
  }
  Damage damage = look(record.end(), zone_end, k_red_byte);
  if (damage.first == nullptr) damage = look(record.raw, record.block, k_red_byte);
  const bool written_dead = damage.first == nullptr && waited;
  if (written_dead) damage = look(record.block, body_end, freed_byte_);
  if (damage.first != nullptr && !record.reported) {
    record.reported = true;
    report_damage(record, damage, found);
  }
  if (damage.first != nullptr && result != nullptr && result->ok) {
    result->ok = false;
    std::snprintf(result->invariant, sizeof result->invariant, "%s", written_dead ? "DB-2" : "DB-1");
    std::snprintf(result->text, sizeof result->text, "%s of a block of %zu bytes made at %s",
                  written_dead ? "use after free" : damage.first < record.block ? "underrun" : "overrun", record.size,
                  sites_.text(record.made_at));
  }
  if (watched) {
    base::watch_close(record.raw, static_cast<std::size_t>(record.block - record.raw));
    base::watch_close(record.end(), static_cast<std::size_t>(zone_end - record.end()));
    if (waited) base::watch_close(record.block, static_cast<std::size_t>(body_end - record.block));
  }
  if (damage.first != nullptr && found != Found::by_check) end_if_strict();
  return damage.first == nullptr;
}

CheckResult DebugLayer::verify() noexcept {
  const LockGuard guard(lock_);
  CheckResult result;
  blocks_.for_each([&](DebugBlock& record) {
    if (record.state != DebugState::freeing) check_block(record, Found::by_check, &result);
  });
  return result;
}

void* DebugLayer::resize(void* block, std::size_t size) noexcept {
  Place place;
  find_place(&place);
  std::size_t old = 0;
  {
    const LockGuard guard(lock_);
    DebugBlock* const record = blocks_.find(block);
    if (record == nullptr || record->state != DebugState::live) {
      report_misuse(block, record != nullptr ? record : blocks_.near(block), "realloc", place);
      return nullptr;
    }
    old = record->size;
  }
  // Always to another place, so that whoever kept the old pointer is found.
  void* const moved = allocate(size, false);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, block, std::min(old, size));
  free_block(block, "realloc", place);
  return moved;
}

std::size_t DebugLayer::usable_size(const void* block) noexcept {
  const LockGuard guard(lock_);
  const DebugBlock* const record = blocks_.find(block);
  return record != nullptr && record->state == DebugState::live && !record->fallback ? record->size : 0;
}

bool DebugLayer::is_fallback_block(const void* block) noexcept {
  if (pool_.fallback_table_.count() == 0) return false;
  const LockGuard guard(lock_);
  const DebugBlock* const record = blocks_.find(block);
  return record != nullptr && record->fallback && record->state == DebugState::live;
}

std::size_t DebugLayer::outstanding(LiveBlock* blocks, std::size_t capacity) noexcept {
  std::size_t count = 0;
  {
    const LockGuard guard(lock_);
    const os::Nanoseconds now = os::clock().now();
    blocks_.for_each([&](const DebugBlock& record) {
      if (record.state != DebugState::live) return;
      if (count < capacity) {
        blocks[count] = {record.block, record.size, record.number, static_cast<std::uint64_t>(now - record.made),
                         sites_.text(record.made_at)};
      }
      ++count;
    });
  }
  std::sort(blocks, blocks + std::min(count, capacity), [](const LiveBlock& a, const LiveBlock& b) { return a.number < b.number; });
  return count;
}

void DebugLayer::correct(Stats* stats) noexcept {
  const LockGuard guard(lock_);
  stats->current_count = current_count_;
  stats->current_bytes = current_bytes_;
  stats->requested_bytes = requested_bytes_;
  stats->peak_count = peak_count_;
  stats->peak_bytes = peak_bytes_;
}

void DebugLayer::reset_peak() noexcept {
  const LockGuard guard(lock_);
  peak_count_ = current_count_;
  peak_bytes_ = current_bytes_;
}

}  // namespace rtpool::pool
