// Naming blocks to other processes, holding theirs.
//
// How often this process holds a block is counted here, in its own memory; the others see one bit. The array NumPy made
// counts as one hold, each handle and each opened array as one more.
#include <cerrno>
#include <mutex>

#include "shared/section.hpp"

namespace rtpool::shared {

int SharedPool::share(const void* address, BlockRef* ref, BlockRange* range) noexcept {
  std::uint64_t offset = 0;
  if (!segment_.offset_of(address, &offset)) return EINVAL;
  Section section(*this);
  if (!ready()) return EINVAL;
  const Block block = heap_->find_around(offset);
  if (!block) {
    const Block before = inherited(offset, range);
    return before ? share_inherited(before, *range, ref) : EINVAL;
  }
  *range = {heap_->offset_of(block), heap_->granted(block)};
  if (block.record() != 0) {
    Hold& hold = holds_[block.record() - 1];
    if (hold.count == 0) return EINVAL;  // its array is gone, and so are all that this process had opened
    *ref = {block.record() - 1, hold.generation};
    ++hold.count;
    return 0;
  }
  if (const int error = records_.create(tenancy_, *range, ref); error != 0) return error;
  forget_earlier(*ref);
  // A record that this process still holds is not free, whatever others have written into it.
  if (holds_[ref->record].count != 0) return EBADMSG;
  block.record() = ref->record + 1;
  holds_[ref->record] = {ref->generation, 2, range->offset + 1, false, true};  // the array's and the caller's
  return 0;
}

// An array inherited by fork: it keeps its place as long as this process lives, and its record keeps it then. One that was
// shared before has a record, which its owner and all others look at: a second one would keep it from nobody.
int SharedPool::share_inherited(const Block& block, const BlockRange& range, BlockRef* ref) noexcept {
  if (block.let_go()) return EINVAL;
  if (block.record() != 0) {
    BlockRange there;
    *ref = records_.current(block.record() - 1);
    if (const int error = hold_locked(*ref, &there); error != 0) return error;
    if (there.offset == range.offset && there.bytes == range.bytes) return 0;
    drop_hold(*ref);
    return EINVAL;
  }
  if (const int error = records_.create(tenancy_, range, ref); error != 0) return error;
  forget_earlier(*ref);
  if (holds_[ref->record].count != 0) return EBADMSG;
  holds_[ref->record] = {ref->generation, 1, 0, false, false};
  return 0;
}

int SharedPool::hold_locked(const BlockRef& ref, BlockRange* range) noexcept {
  if (!ready()) return ENOSPC;
  if (ref.record >= geometry().records) return EBADMSG;
  Hold& hold = holds_[ref.record];
  if (hold.count != 0 && hold.generation == ref.generation) {
    if (!records_.range_of(ref.record, range)) return EBADMSG;
    ++hold.count;
    return 0;
  }
  if (const int error = records_.acquire(tenancy_, ref, hold.count != 0, range); error != 0) return error;
  // `block` stays: this may be the owner's own block, whose array is gone, come back in a handle; of another generation if
  // others have borrowed it meanwhile.
  const bool borrowed = hold.block == range->offset + 1 && records_.owner(ref.record) == tenancy_;
  if (hold.generation != ref.generation && !borrowed) {
    forget_earlier(ref);
    hold.block = 0;
    hold.array = false;
  } else if (const Block mine = block_of(hold, ref.record); mine && mine.let_go()) {
    heap_->hold_again(mine);
    publish_counts();
  }
  hold.generation = ref.generation;
  hold.count = 1;
  hold.pinned = false;
  return 0;
}

int SharedPool::hold(const BlockRef& ref, BlockRange* range) noexcept {
  Section section(*this);
  return hold_locked(ref, range);
}

void SharedPool::drop(const BlockRef& ref, std::uint32_t lineage) noexcept {
  Section section(*this);
  if (lineage != lineage_ || heap_ == nullptr || ref.record >= geometry().records) return;
  const Hold& hold = holds_[ref.record];
  if (hold.count == 0 || hold.generation != ref.generation) return;
  if (has_children_ && hold.pinned && defer({k_no_block, ref})) return;
  drop_hold(ref);
  publish_counts();
}

// Locked. The last one of this process lets go of the block; if that was the last of all and it is ours, it is free.
void SharedPool::drop_hold(const BlockRef& ref) noexcept {
  Hold& hold = holds_[ref.record];
  if (--hold.count != 0) return;
  const Block mine = block_of(hold, ref.record);
  if (RTPOOL_UNLIKELY(mine && mine.borrowed())) {
    heap_->give_back(mine);
    hold = Hold{};
    (void)records_.drop(tenancy_, ref);
  } else if (records_.drop(tenancy_, ref)) {
    take_back(ref);
  } else if (mine && !mine.let_go()) {
    heap_->let_go(mine);
  }
}

// This process's own live block behind a hold.
Block SharedPool::block_of(const Hold& hold, std::uint32_t record) const noexcept {
  const Block block = hold.block != 0 ? heap_->find(hold.block - 1) : Block{};
  return block && block.record() == record + 1 ? block : Block{};
}

// A record that comes to stand for another block: the one it stood for before is closed, if it was ours.
void SharedPool::forget_earlier(const BlockRef& ref) noexcept {
  const Hold& hold = holds_[ref.record];
  if (hold.block != 0 && hold.generation != ref.generation) take_back_elsewhere({ref.record, hold.generation});
}

void SharedPool::take_back(const BlockRef& ref) noexcept {
  Hold& hold = holds_[ref.record];
  // What this process still holds is not free, whatever others have written into the record.
  if (hold.generation != ref.generation || hold.block == 0 || hold.count != 0) return;
  const Block block = block_of(hold, ref.record);
  hold = Hold{};
  if (!block) return;
  block.record() = 0;
  heap_->give(block);
}

// Looks at every record: those that wait for this process, and those that came to stand for another block meanwhile.
void SharedPool::take_back_all_closed() noexcept {
  records_.scan_returned(tenancy_, take_back_returned, this);
  for (std::uint32_t record = 0; record < geometry().records; ++record) {
    const Hold& hold = holds_[record];
    BlockRef ref{record, hold.generation};
    if (hold.block != 0 && hold.count == 0 && records_.over(tenancy_, hold.block - 1, &ref)) take_back_returned(this, ref);
  }
}

void SharedPool::take_back_returned(void* self, BlockRef ref) noexcept {
  auto* const pool = static_cast<SharedPool*>(self);
  Hold& hold = pool->holds_[ref.record];
  ++pool->returned_;
  // Others may have borrowed it since it was shared; a record that is this process's is that of the block it made it for.
  if (hold.count == 0) hold.generation = ref.generation;
  pool->take_back_elsewhere(ref);
}

void SharedPool::take_back_elsewhere(const BlockRef& ref) noexcept {
  section_->set_elsewhere(true);
  take_back(ref);
  section_->set_elsewhere(false);
}

int SharedPool::depart(const BlockRef& ref, Tenancy* sender) noexcept {
  const std::lock_guard guard(mutex_);
  if (!ready() || ref.record >= geometry().records) return ESTALE;
  const Hold& hold = holds_[ref.record];
  if (hold.count == 0 || hold.generation != ref.generation) return ESTALE;
  *sender = tenancy_;
  return records_.add_ticket(tenancy_, ref);
}

int SharedPool::arrive(const BlockRef& ref, Tenancy sender, BlockRange* range) noexcept {
  Section section(*this);
  const int error = hold_locked(ref, range);
  if (error == 0) records_.take_ticket(sender, ref);
  return error;
}

std::uint64_t SharedPool::reclaim(std::uint32_t seconds) noexcept {
  const std::uint64_t count = records_.drop_tickets(seconds, false);
  segment_.header().lost_tickets.fetch_add(count);
  return count;
}

const char* SharedPool::read_only_data(int* error) noexcept {
  const std::lock_guard guard(mutex_);
  *error = segment_.map_read_only(options_.prefault);
  return segment_.read_only_data();
}

}  // namespace rtpool::shared
