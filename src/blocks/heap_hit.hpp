// The hit paths of a thread heap, inline. Whatever is rare returns failure and is the slow path's to sort out.
#pragma once

#include "blocks/heap.hpp"

namespace rtpool::blocks {

inline void Heap::account(std::size_t granted, std::size_t requested) noexcept {
  stats.total_count.add(1);
  stats.total_bytes.add(granted);
  stats.requested.add(requested);
  stats.live_bytes.add(granted);
  stats.live_count.add(1);
  if (RTPOOL_UNLIKELY(stats.live_bytes.get() > stats.peak_bytes.get())) stats.peak_bytes.set(stats.live_bytes.get());
  if (RTPOOL_UNLIKELY(stats.live_count.get() > stats.peak_count.get())) stats.peak_count.set(stats.live_count.get());
}

inline void Heap::unaccount(std::size_t granted, std::size_t requested) noexcept {
  stats.requested.sub(requested);
  stats.live_bytes.sub(granted);
  stats.live_count.sub(1);
}

inline void* Heap::pop_small(unsigned size_class, std::size_t size) noexcept {
  Magazine& magazine = magazines_[size_class];
  Item* const top = magazine.top;
  void* const block = top->block;
  if (RTPOOL_UNLIKELY(block == nullptr)) return nullptr;
  magazine.top = top - 1;
  const std::size_t granted = class_bytes(size_class);
  top->state->store(static_cast<std::uint16_t>(k_live | (granted - size)), std::memory_order_relaxed);
  account(granted, size);
  return block;
}

inline Heap::Popped Heap::pop_run(std::uint64_t pages, std::size_t size) noexcept {
  RunBin& bin = bins_[set_of(pages)];
  const pages::PageIndex first = bin.head;
  if (RTPOOL_UNLIKELY(bin.pages != pages || first == pages::k_no_page)) return {};
  pages::PageDesc& desc = view_->descs[first];
  bin.head = desc.run.next;
  --bin.count;
  bin.used = 1;
  const std::size_t granted = pages * os::k_page_size;
  const bool zero = (desc.run.extra & pages::k_extra_zero) != 0;
  desc.run.extra = static_cast<std::uint32_t>(granted - size);
  desc.head.store(live_head_, std::memory_order_relaxed);
  account(granted, size);
  return {view_->base + std::size_t{first} * os::k_page_size, zero};
}

inline bool Heap::push(void* block, std::size_t offset, pages::PageDesc& desc) noexcept {
  const std::uint32_t head = desc.head.load(std::memory_order_relaxed);
  if (head == slab_head_) {
    Slab& slab = *desc.slab;
    State& state = slab.states()[static_cast<std::size_t>(static_cast<char*>(block) - slab.base) / k_unit];
    const std::uint32_t was = state.load(std::memory_order_relaxed);
    Magazine& magazine = magazines_[slab.size_class];
    Item* const top = magazine.top;
    if (RTPOOL_UNLIKELY((was & k_live) == 0 || offset % k_unit != 0 || top == magazine.last)) return false;
    state.store(k_magazine, std::memory_order_relaxed);
    top[1] = {block, &state};
    magazine.top = top + 1;
    const std::size_t granted = class_bytes(slab.size_class);
    unaccount(granted, granted - (was & k_slack_mask));
    return true;
  }
  const std::uint32_t pages = desc.pages;
  RunBin& bin = bins_[set_of(pages)];
  if (RTPOOL_UNLIKELY(head != live_head_ || offset % os::k_page_size != 0 || bin.pages != pages)) return false;
  const std::size_t granted = std::size_t{pages} * os::k_page_size;
  unaccount(granted, granted - (desc.run.extra & pages::k_extra_slack));
  desc.run = {bin.head, 0};
  desc.head.store(cached_head_, std::memory_order_relaxed);
  bin.head = static_cast<pages::PageIndex>(offset / os::k_page_size);
  ++bin.count;
  return true;
}

}  // namespace rtpool::blocks
