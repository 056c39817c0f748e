// Allocating and freeing.
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "base/check.hpp"
#include "pool/refusal.hpp"
#include "shared/section.hpp"

namespace rtpool::shared {
namespace {

constexpr std::uint32_t k_orphan_patience_s = 60;  // for handles under way from processes that are dead
constexpr std::uint32_t k_most_skipped = 4096;
constexpr unsigned k_most_waits = 100;

}  // namespace

void SharedPool::publish_counts() noexcept {
  ProcessSlot& slot = segment_.process(tenancy_.slot);
  const HeapCounts& counts = heap_->counts();
  slot.current_bytes.store(counts.current_bytes - counts.recorded_bytes, std::memory_order_relaxed);
  slot.current_count.store(counts.current_count - counts.recorded_count, std::memory_order_relaxed);
  slot.requested_bytes.store(counts.requested_bytes - counts.recorded_requested_bytes, std::memory_order_relaxed);
}

SharedPool::Taken SharedPool::take(std::uint64_t size) noexcept {
  Taken taken;
  bool search_others = false;
  {
    Section section(*this);
    // What is had is told, or among the live blocks when recording begins.
    taken.recording = section.recording();
    if (closed() || !ready()) return taken;
    taken.offset = heap_->take(size);
    if (taken.offset == k_no_block) {
      misses_.fetch_add(1, std::memory_order_relaxed);
      taken.missed = true;
      taken.offset = refill(size);
      search_others = taken.offset == k_no_block && size <= geometry().data_bytes;
    }
    if (taken.offset != k_no_block) publish_counts();
  }
  return search_others ? refill_from_others(size) : taken;
}

// Locked: what this process can do by itself.
std::uint64_t SharedPool::refill(std::uint64_t size) noexcept {
  records_.drain_returned(tenancy_, take_back_returned, this);
  std::uint64_t offset = heap_->take(size);
  if (offset == k_no_block) offset = heap_->take_new(size);
  if (offset != k_no_block) return offset;
  take_back_all_closed();
  offset = heap_->take(size);
  if (offset == k_no_block && heap_->trim() != 0) offset = heap_->take_new(size);
  return offset;
}

// Not locked. While another process does the same, which takes the memory of the dead and the idle for itself or for
// nobody, this one waits for it a little, unless its caller has something to fall back on. With that, the search is made more
// and more seldom in a pool that stays full.
SharedPool::Taken SharedPool::refill_from_others(std::uint64_t size) noexcept {
  Taken taken;
  taken.missed = true;
  {
    Section section(*this);
    taken.recording = section.recording();
    if (options_.fall_back && skip_ != 0) {
      --skip_;
      return taken;
    }
  }
  for (unsigned tries = options_.fall_back ? 1 : k_most_waits; tries != 0; --tries) {
    bool refused = false;
    taken = search_others(size, &refused);
    if (taken.offset != k_no_block) return taken;
    if (!refused) break;
    Recovery::wait_for_another();
  }
  const std::lock_guard guard(mutex_);
  if (futile_ < 32) ++futile_;
  skip_ = futile_ < 12 ? (1U << futile_) - 1 : k_most_skipped;
  return taken;
}

// Not locked: borrows a block of just that size, recovers what the dead held, takes what living processes do not use,
// borrows a larger block, gives handles up that nobody will take.
SharedPool::Taken SharedPool::search_others(std::uint64_t size, bool* refused) noexcept {
  Taken taken;
  taken.missed = true;
  const std::uint64_t small = small_limit(geometry().granule_bytes());
  enum class Stage { borrow_exact, recover, steal, borrow_any, give_up_handles, over };
  for (auto stage = Stage::borrow_exact; stage != Stage::over; stage = static_cast<Stage>(static_cast<int>(stage) + 1)) {
    const bool borrows = stage == Stage::borrow_exact || stage == Stage::borrow_any;
    if (borrows && size > small) continue;
    if (stage == Stage::give_up_handles && records_.drop_tickets(k_orphan_patience_s, true) == 0) continue;
    if (!borrows && !(stage == Stage::steal ? recovery_.steal_idle(tenancy_) : recovery_.run(tenancy_))) *refused = true;
    Section section(*this);
    taken.recording = section.recording();
    flush_deferred();
    const std::uint64_t most = stage == Stage::borrow_exact ? class_bytes(class_of(size)) : small;
    taken.offset = borrows ? borrow(size, most) : refill(size);
    if (taken.offset == k_no_block) continue;
    futile_ = 0;
    publish_counts();
    return taken;
  }
  return taken;
}

// Locked. A block that waits in another process's slab for its owner to look: that one may sleep.
std::uint64_t SharedPool::borrow(std::uint64_t size, std::uint64_t most) noexcept {
  BlockRef ref;
  BlockRange range;
  if (!recovery_.borrow(tenancy_, class_bytes(class_of(size)), most, &ref, &range)) return k_no_block;
  forget_earlier(ref);
  Hold& hold = holds_[ref.record];
  if (hold.count == 0 && heap_->borrow(range.offset, range.bytes, ref.record, size)) {
    hold = {ref.generation, 1, range.offset + 1, false, true};
    return range.offset;
  }
  (void)records_.drop(tenancy_, ref);
  return k_no_block;
}

void* SharedPool::fall_back(std::size_t size, bool zeroed) noexcept {
  void* const block = !options_.fall_back ? nullptr : zeroed ? fallback_.calloc(1, size) : fallback_.malloc(size);
  if (block != nullptr && fallback_table_.add(block, size)) {
    fallbacks_.fetch_add(1, std::memory_order_relaxed);
    return block;
  }
  if (block != nullptr) fallback_.free(block);
  failures_.fetch_add(1, std::memory_order_relaxed);
  pool::note_refusal({this, size, 0, options_.fall_back});
  return nullptr;
}

void* SharedPool::allocate_as(std::size_t size, bool zeroed, unsigned how) noexcept {
  if (size == 0) size = 1;
  const Taken taken = take(size);
  const bool had = RTPOOL_LIKELY(taken.offset != k_no_block);
  void* const block = had ? segment_.data() + taken.offset : fall_back(size, zeroed);
  const std::uint64_t recording = had ? taken.recording : recording_now();
  if (RTPOOL_UNLIKELY(recording != 0)) note_allocation(recording, block, size, zeroed, taken.missed, how);
  return had && zeroed ? std::memset(block, 0, size) : block;
}

void* SharedPool::allocate(std::size_t size) noexcept { return allocate_as(size, false, 0); }

void* SharedPool::allocate_zeroed(std::size_t size) noexcept { return allocate_as(size, true, 0); }

// Locked. The same block unless its maker has freed it: a shared one may live on without its maker.
inline Block SharedPool::unless_freed(Block block) const noexcept {
  const bool freed = block && block.record() != 0 && !holds_[block.record() - 1].array;
  return freed ? Block{} : block;
}

// Locked. The block that starts there and that this process has not freed.
Block SharedPool::own_block(std::uint64_t offset) const noexcept {
  return unless_freed(heap_ != nullptr ? heap_->find(offset) : Block{});
}

inline void SharedPool::end_block(Block block, std::uint64_t offset) noexcept {
  if (RTPOOL_UNLIKELY(has_children_) && block.pinned() && defer({offset, {}})) return;
  free_block(block);
  publish_counts();
}

void SharedPool::release(void* address) noexcept { release_as(address, 0); }

void SharedPool::release_as(void* address, unsigned how) noexcept {
  if (address == nullptr) return;
  std::uint64_t offset = 0;
  if (!segment_.offset_of(address, &offset)) {
    std::size_t size = 0;
    if (!fallback_table_.remove(address, &size)) return misuse(address, "is not in the pool");
    if (RTPOOL_UNLIKELY(recording())) note_end(address, size, how);
    return fallback_.free(address);
  }
  Section section(*this);
  section.set_how(how);
  const Block block = unless_freed(heap_ != nullptr ? heap_->find_own(offset) : Block{});
  if (!block) return release_other(address, offset);
  end_block(block, offset);
}

// Locked. What lies in no run of this process: a block that it borrows, or nothing that it could free.
[[gnu::noinline]] void SharedPool::release_other(void* address, std::uint64_t offset) noexcept {
  if (const Block block = own_block(offset)) return end_block(block, offset);
  // Blocks of an ancestor: the child has no part in them, they are the ancestor's to free.
  BlockRange range;
  if (!inherited(offset, &range)) misuse(address, "is no live block of this process");
}

void SharedPool::free_block(Block block) noexcept {
  const std::uint32_t shared = block.record();
  if (RTPOOL_LIKELY(shared == 0)) {
    heap_->give(block);
  } else {
    holds_[shared - 1].array = false;
    drop_hold({shared - 1, holds_[shared - 1].generation});
  }
}

void* SharedPool::resize(void* address, std::size_t size) noexcept {
  if (address == nullptr) return allocate(size);
  if (size == 0) size = 1;
  std::uint64_t offset = 0;
  std::size_t old = 0;
  if (!segment_.offset_of(address, &offset)) return resize_fallback(address, size);
  bool in_place = false;
  std::uint64_t recording = 0;
  {
    Section section(*this);
    const Block block = own_block(offset);
    BlockRange range;
    if (block) {
      old = heap_->granted(block);
      in_place = size <= old && size >= old / 2;
      recording = section.recording();
      if (in_place) {
        section.set_how(trace::k_resize);
        if (RTPOOL_UNLIKELY(recording != 0)) section.note(address, heap_->requested(block), false);
        heap_->set_requested(block, size);
        publish_counts();
      }
    } else if (inherited(offset, &range)) {
      old = range.bytes;
    } else {
      misuse(address, "is no live block of this process");
      return nullptr;
    }
  }
  if (in_place) {
    if (RTPOOL_UNLIKELY(recording != 0)) note_allocation(recording, address, size, false, false, trace::k_resize);
    return address;
  }
  void* const moved = allocate_as(size, false, trace::k_resize);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, address, old < size ? old : size);
  release_as(address, trace::k_resize);
  return moved;
}

void* SharedPool::resize_fallback(void* address, std::size_t size) noexcept {
  std::size_t old = 0;
  // Out of the table first: as soon as the memory is given back another thread may have it.
  if (!fallback_table_.remove(address, &old)) {
    misuse(address, "is not in the pool");
    return nullptr;
  }
  const trace::BlockEnd end = trace::recorder().end_of(nullptr, address, old, trace::k_free | trace::k_resize);
  void* const moved = fallback_.realloc(address, size);
  (void)fallback_table_.add(moved != nullptr ? moved : address, moved != nullptr ? size : old);  // has the place that was left
  if (const std::uint64_t recording = recording_now(); moved != nullptr && RTPOOL_UNLIKELY(recording != 0)) {
    trace::recorder().ended(end, !pool::Pool::any_frozen());
    note_allocation(recording, moved, size, false, true, trace::k_resize);
  }
  return moved;
}

bool SharedPool::contains(const void* address) const noexcept {
  std::uint64_t offset = 0;
  return segment_.offset_of(address, &offset);
}

std::size_t SharedPool::usable_size(const void* address) noexcept {
  std::uint64_t offset = 0;
  if (!segment_.offset_of(address, &offset)) return 0;
  const std::lock_guard guard(mutex_);
  const Block block = own_block(offset);
  return block ? heap_->granted(block) : 0;
}

Block SharedPool::inherited(std::uint64_t offset, BlockRange* range) const noexcept {
  for (const Heap* heap = inherited_heap_; heap != nullptr; heap = heap->older()) {
    const Block block = heap->find_around(offset);
    if (!block) continue;
    *range = {heap->offset_of(block), heap->granted(block)};
    return block;
  }
  return {};
}

void SharedPool::misuse(const void* block, const char* what) noexcept {
  misuses_.fetch_add(1, std::memory_order_relaxed);
  base::report_line("shared pool %s: %p %s; nothing was done", name(), block, what);
}

// What is freed while a forked child may still look at it. False: it need not wait, or (no memory) cannot be kept track
// of; then it stays allocated for good rather than change under the child.
bool SharedPool::defer(const Deferred& deferred) noexcept {
  if (deferred_count_ == deferred_room_) {
    const std::size_t room = deferred_room_ == 0 ? 64 : deferred_room_ * 2;
    void* const grown = std::realloc(deferred_, room * sizeof(Deferred));
    if (grown == nullptr) return true;
    deferred_ = static_cast<Deferred*>(grown);
    deferred_room_ = room;
  }
  deferred_[deferred_count_++] = deferred;
  return true;
}

// Locked, after a recovery: when no child is left, does what waited for that, except where a child shared a block on.
void SharedPool::flush_deferred() noexcept {
  if (!has_children_ || heap_ == nullptr || processes_.has_child(tenancy_)) return;
  const Coverage coverage(segment_, records_, Coverage::By::inherited);
  if (!coverage.ok()) return;
  std::size_t kept = 0;
  section_->set_elsewhere(true);  // freed long ago, where it is not known any more
  for (std::size_t i = 0; i < deferred_count_; ++i) {
    const Deferred entry = deferred_[i];
    if (entry.offset == k_no_block) {
      drop_hold(entry.ref);
      continue;
    }
    const Block block = heap_->find(entry.offset);
    if (!block) continue;
    if (coverage.covers(entry.offset, heap_->granted(block))) deferred_[kept++] = entry;
    else free_block(block);
  }
  section_->set_elsewhere(false);
  deferred_count_ = kept;
  if (kept != 0) return;
  has_children_ = false;
  heap_->unpin_all();
  for (std::uint32_t i = 0; i < geometry().records; ++i) holds_[i].pinned = false;
}

}  // namespace rtpool::shared
