// The hit paths of a thread heap, inline. Whatever is rare returns failure and is the slow path's to sort out.
#pragma once

#include "blocks/heap.hpp"

namespace rtpool::blocks {

inline Heap::Pop Heap::account(std::size_t granted, std::size_t slack) noexcept {
  // In one, as the sum in memory is what the next pair waits for: the compiler would add the two terms to it by turns.
  std::uint64_t count_and_slack = slack - k_one_block;
  asm("" : "+r"(count_and_slack));
  if (RTPOOL_UNLIKELY(headroom_bytes_.add_below_zero(0 - granted))) {
    headroom_count_and_slack_.add(count_and_slack);
    return Pop::new_peak;
  }
  if (RTPOOL_UNLIKELY(headroom_count_and_slack_.add_below_zero(count_and_slack))) return Pop::new_peak;
  return Pop::block;
}

inline void Heap::unaccount(std::size_t granted, std::size_t slack) noexcept {
  headroom_bytes_.add(granted);
  headroom_count_and_slack_.add(k_one_block - slack);
}

inline Heap::Popped Heap::pop_small(std::size_t size) noexcept {
  const std::size_t place = magazine_of(size);
  Magazine& magazine = magazine_at(place);
  Item* const top = magazine.top;
  void* const block = top->block;
  if (RTPOOL_UNLIKELY(block == nullptr)) return {};
  magazine.top = top - 1;
  magazine.pops.add(1);
  const std::size_t granted = granted_at(place);
  const std::size_t slack = granted - size;
  top->state->store(static_cast<std::uint16_t>(k_live + slack), std::memory_order_relaxed);
  return {block, false, account(granted, slack)};
}

inline Heap::Popped Heap::pop_run(const pages::ArenaView& view, std::uint64_t pages, std::size_t size) noexcept {
  RunBin& bin = bin_at(bin_of(pages));
  const pages::PageIndex first = bin.head;
  if (RTPOOL_UNLIKELY(bin.pages != pages || first == pages::k_no_page)) return {};
  pages::PageDesc& desc = view.descs[first];
  bin.head = desc.run.next.load(std::memory_order_relaxed);
  bin.pops.add(1);
  const std::size_t granted = pages * os::k_page_size;
  const std::size_t slack = granted - size;
  const bool zero = (desc.run.use.slack & pages::k_slack_zero) != 0;
  desc.set_live(slack);
  char* const block = view.base + std::size_t{first} * os::k_page_size;
  return {block, zero, account(granted, slack)};
}

inline bool Heap::push_and_leave(void* block, std::size_t offset, pages::PageDesc& desc) noexcept {
  const std::uint32_t state = desc.head.load(std::memory_order_relaxed) - tag_;
  if (RTPOOL_FIRST(state == static_cast<std::uint32_t>(pages::RunState::slab))) {
    const std::size_t place = desc.in_slab.magazine;
    State& unit = *state_of_unit(desc, offset / k_unit);
    const std::uint32_t was = unit.load(std::memory_order_relaxed);
    Magazine& magazine = magazine_at(place);
    Item* const top = magazine.top;
    if (RTPOOL_UNLIKELY((was & k_live) == 0 || offset % k_unit != 0 || top == magazine.last)) return false;
    unit.store(k_magazine, std::memory_order_relaxed);
    top[1] = {block, &unit};
    magazine.top = top + 1;
    headroom_bytes_.add(granted_at(place));
    headroom_count_and_slack_.add(k_one_block + k_live - was);
    lock.leave_fast();
    return true;
  }
  // Only a run of this heap has the place of a bin there; a wrong pointer may lead to a page that has something else.
  if (RTPOOL_UNLIKELY(state != static_cast<std::uint32_t>(pages::RunState::heap) || offset % os::k_page_size != 0)) return false;
  const std::uint32_t pages = desc.pages;
  RunBin& bin = bin_at(desc.run.use.bin);
  if (RTPOOL_UNLIKELY(bin.pages != pages)) return false;
  if (RTPOOL_UNLIKELY(desc.run.next.load(std::memory_order_relaxed) != pages::k_live)) return false;
  unaccount(std::size_t{pages} * os::k_page_size, desc.run.use.slack);
  desc.run.next.store(bin.head, std::memory_order_relaxed);
  bin.head = static_cast<pages::PageIndex>(offset / os::k_page_size);
  lock.leave_fast();
  return true;
}

}  // namespace rtpool::blocks
