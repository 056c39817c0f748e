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

inline Heap::Popped Heap::pop_small(unsigned size_class, std::size_t size) noexcept {
  Magazine& magazine = magazines_[size_class];
  Item* const top = magazine.top;
  void* const block = top->block;
  if (RTPOOL_UNLIKELY(block == nullptr)) return {};
  magazine.top = top - 1;
  magazine.pops.add(1);
  const std::size_t granted = class_bytes(size_class);
  const std::size_t slack = granted - size;
  top->state->store(static_cast<std::uint16_t>(k_live | slack), std::memory_order_relaxed);
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

inline bool Heap::push(void* block, std::size_t offset, pages::PageDesc& desc) noexcept {
  const std::uint32_t state = desc.head.load(std::memory_order_relaxed) - tag_;
  if (state == static_cast<std::uint32_t>(pages::RunState::slab)) {
    const std::uint32_t size_class = desc.pages;
    Slab& slab = *desc.slab;
    State& unit = slab.states()[static_cast<std::size_t>(static_cast<char*>(block) - slab.base) / k_unit];
    const std::uint32_t was = unit.load(std::memory_order_relaxed);
    Magazine& magazine = magazines_[size_class];
    Item* const top = magazine.top;
    if (RTPOOL_UNLIKELY((was & k_live) == 0 || offset % k_unit != 0 || top == magazine.last)) return false;
    unit.store(k_magazine, std::memory_order_relaxed);
    top[1] = {block, &unit};
    magazine.top = top + 1;
    unaccount(class_bytes(size_class), was & k_small_slack_mask);
    return true;
  }
  // Only a run of this heap has the place of a bin there; a wrong pointer may lead to a page that has something else.
  if (RTPOOL_UNLIKELY(state != static_cast<std::uint32_t>(pages::RunState::heap) || offset % os::k_page_size != 0)) return false;
  const std::uint32_t pages = desc.pages;
  RunBin& bin = bin_at(desc.run.use.bin);
  if (RTPOOL_UNLIKELY(bin.pages != pages || desc.run.next.load(std::memory_order_relaxed) != pages::k_live)) return false;
  unaccount(std::size_t{pages} * os::k_page_size, desc.run.use.slack);
  desc.run.next.store(bin.head, std::memory_order_relaxed);
  bin.head = static_cast<pages::PageIndex>(offset / os::k_page_size);
  return true;
}

}  // namespace rtpool::blocks
