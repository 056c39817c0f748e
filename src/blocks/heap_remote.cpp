// Blocks that other threads freed: on their way, and taken back.
#include <bit>

#include "base/bits.hpp"
#include "blocks/heap_hit.hpp"

namespace rtpool::blocks {

using pages::k_no_page;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

// Of the slab's record only what others write is touched: the class is known from the page's descriptor as well.
bool Heap::free_remote(Slab& slab, unsigned size_class, unsigned unit, std::size_t* requested) noexcept {
  // Of two threads that free a block at the same time one succeeds.
  State& state = slab.states()[unit];
  std::uint16_t was = state.load(std::memory_order_relaxed);
  do {
    if ((was & k_live) == 0) return false;
  } while (!state.compare_exchange_weak(was, k_free, std::memory_order_relaxed));
  *requested = was & k_small_size_mask;
  add_remote(slab, remote_slabs_[size_class], std::uint64_t{1} << block_at_unit(size_class, unit));
  return true;
}

// What the slab's word was before.
std::uint64_t Heap::add_remote(Slab& slab, std::atomic<Slab*>& list, std::uint64_t blocks) noexcept {
  const std::uint64_t before = slab.remote.fetch_or(blocks, std::memory_order_acq_rel);
  if (before != 0) return before;
  // First of its slab: only this thread may put the slab on the list, until the owner has taken it off again.
  Slab* first = list.load(std::memory_order_relaxed);
  do {
    slab.next_remote = first;
  } while (!list.compare_exchange_weak(first, &slab, std::memory_order_release, std::memory_order_relaxed));
  return before;
}

// Blocks of one slab in a row are one operation on its word. Who has freed one of them at the same time has told the owner already,
// or is just telling.
const void* Heap::send_outgoing() noexcept {
  const auto count = static_cast<unsigned>(outgoing_count_.get());
  const void* twice = nullptr;
  const auto lose = [&](const Outgoing& one) {
    const std::size_t granted = class_bytes(one.slab->size_class);
    twice = one.slab->base + one.block * granted;
    stats.given_bytes.sub(granted);
    stats.given_count.sub(1);
    stats.given_requested.sub(one.requested);
  };
  unsigned next = 0;
  while (next != count && twice == nullptr) {
    const unsigned begin = next;
    Slab& slab = *outgoing_[begin].slab;
    std::uint64_t blocks = 0;
    do {
      const Outgoing& one = outgoing_[next];
      const bool mine = one.state->load(std::memory_order_relaxed) == k_outgoing;
      if (RTPOOL_LIKELY(mine)) {
        one.state->store(k_free, std::memory_order_relaxed);
        blocks |= std::uint64_t{1} << one.block;
      } else {
        lose(one);
      }
    } while (++next != count && outgoing_[next].slab == &slab && twice == nullptr);
    if (blocks == 0) continue;
    if (const std::uint64_t told = add_remote(slab, *outgoing_[begin].list, blocks) & blocks; RTPOOL_UNLIKELY(told != 0)) {
      for (unsigned i = begin; i != next; ++i) {
        if ((told >> outgoing_[i].block & 1) != 0) lose(outgoing_[i]);
      }
    }
  }
  for (unsigned i = next; i != count; ++i) outgoing_[i - next] = outgoing_[i];
  outgoing_count_.set(count - next);
  return twice;
}

bool Heap::free_remote(PageIndex first, std::size_t* requested) noexcept {
  PageDesc& desc = descs_[first];
  PageIndex live = pages::k_live;
  if (!desc.run.next.compare_exchange_strong(live, pages::k_remote, std::memory_order_relaxed)) return false;
  *requested = std::size_t{desc.pages} * os::k_page_size - (desc.run.use.slack & pages::k_slack_mask);
  desc.set(RunState::remote, index_);
  PageIndex head = remote_runs_.load(std::memory_order_relaxed);
  do {
    desc.run.next.store(head, std::memory_order_release);  // after `remote`, for who walks over the pages (pool/control.cpp)
  } while (!remote_runs_.compare_exchange_weak(head, first, std::memory_order_release, std::memory_order_relaxed));
  return true;
}

unsigned Heap::drain_slab(Slab& slab) noexcept {
  const std::uint64_t blocks = slab.remote.exchange(0, std::memory_order_acq_rel);
  const auto count = static_cast<unsigned>(std::popcount(blocks));
  const std::size_t granted = count * class_bytes(slab.size_class);
  put_back(slab, blocks);
  headroom_bytes_.add(granted);
  headroom_count_.add(count);
  stats.drained_bytes.add(granted);
  stats.drained_count.add(count);
  return count;
}

void Heap::drain_run(PageIndex first) noexcept {
  const std::size_t granted = std::size_t{descs_[first].pages} * os::k_page_size;
  unaccount(granted, 0);
  stats.drained_bytes.add(granted);
  stats.drained_count.add(1);
  descs_[first].head.store(head_of(RunState::heap), std::memory_order_relaxed);
  cache_run(first, (descs_[first].run.use.slack & pages::k_slack_zero) != 0);
}

bool Heap::drain_class(unsigned size_class, unsigned most) noexcept {
  Slab*& rest = classes_[size_class].drained;
  if (rest == nullptr) {
    std::atomic<Slab*>& list = remote_slabs_[size_class];
    if (list.load(std::memory_order_relaxed) == nullptr) return false;
    rest = list.exchange(nullptr, std::memory_order_acquire);
  }
  for (unsigned drained = 0; rest != nullptr && drained < most;) {
    Slab& slab = *rest;
    rest = slab.next_remote;  // before the slab's blocks are taken: from then on others may put it on the list again
    if (rest != nullptr) base::prefetch_to_write(rest);  // other processors have all of these lines
    drained += drain_slab(slab);
  }
  return true;
}

bool Heap::drain_some_runs(unsigned most) noexcept {
  if (drain_runs_ == k_no_page) drain_runs_ = remote_runs_.exchange(k_no_page, std::memory_order_acquire);
  for (unsigned runs = 0; drain_runs_ != k_no_page && runs < most; ++runs) {
    const PageIndex first = drain_runs_;
    drain_runs_ = descs_[first].run.next.load(std::memory_order_relaxed);
    if (drain_runs_ != k_no_page) base::prefetch_to_write(&descs_[drain_runs_]);
    drain_run(first);
  }
  return true;
}

bool Heap::drain(unsigned most) noexcept {
  bool any = drain_runs(most);
  const std::uint64_t enough = stats.drained_count.get() + most;
  for (unsigned size_class = 1; size_class < k_classes && stats.drained_count.get() < enough; ++size_class) {
    any = drain_class(size_class, most) || any;
  }
  return any;
}

}  // namespace rtpool::blocks
