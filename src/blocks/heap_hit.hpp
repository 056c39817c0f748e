// The hit paths of a thread heap, inline. Whatever is rare returns failure and is the slow path's to sort out.
#pragma once

#include "blocks/heap.hpp"

namespace rtpool::blocks {

[[gnu::always_inline]] inline Heap::Pop Heap::account(std::size_t granted, std::size_t requested) noexcept {
  requested_bytes_.add(requested);
  if (RTPOOL_UNLIKELY(headroom_bytes_.sub_below_zero(granted))) {
    headroom_count_.sub(1);
    return Pop::new_peak;
  }
  if (RTPOOL_UNLIKELY(headroom_count_.sub_below_zero(1))) return Pop::new_peak;
  return Pop::block;
}

[[gnu::always_inline]] inline void Heap::unaccount(std::size_t granted, std::size_t requested) noexcept {
  headroom_bytes_.add(granted);
  headroom_count_.add(1);
  requested_bytes_.sub(requested);
}

[[gnu::always_inline]] inline Heap::Popped Heap::pop_small(std::size_t size) noexcept {
  const std::size_t granted = magazine_of(size);
  Magazine& magazine = magazine_at(granted);
  const std::uint64_t word = magazine.word.get();
  const Item& top = *item_at(Magazine::place_in(word));
  void* const block = top.block;
  if (RTPOOL_UNLIKELY(block == nullptr)) return {};
  State& state = *top.state;
  magazine.word.set(word + Magazine::k_pop);
  state.store(static_cast<std::uint16_t>(k_live + size), std::memory_order_relaxed);
  return {block, false, account(granted, size)};
}

// An empty bin leads to the descriptor that is no page's, and a bin of other pages to one of those: one comparison tells both.
[[gnu::always_inline]] inline Heap::Popped Heap::pop_run(const pages::ArenaView& view, std::uint64_t pages, std::size_t size) noexcept {
  std::size_t bin = set_of(pages);
  const auto first = std::int64_t{static_cast<std::int32_t>(bin_heads_[bin])};
  pages::PageDesc& desc = view.descs[first];
  if (RTPOOL_UNLIKELY(desc.pages != pages)) return {};
  RTPOOL_OPAQUE(bin);
  bin_heads_[bin] = desc.run.next.load(std::memory_order_relaxed);
  bin_pops_[bin].add(1);
  const std::size_t granted = pages * os::k_page_size;
  const bool zero = (desc.run.use.slack & pages::k_slack_zero) != 0;
  desc.set_live(granted - size);
  char* const block = view.base + first * std::int64_t{os::k_page_size};
  return {block, zero, account(granted, size)};
}

[[gnu::always_inline]] inline bool Heap::push_small_and_leave(void* block, std::uint64_t unit, const pages::PageDesc& desc) noexcept {
  if (RTPOOL_UNLIKELY(base::folded_load(desc.head) != slab_head_)) return false;
  const std::size_t granted = desc.in_slab.magazine;
  State& state = *state_of_unit(desc, unit);
  std::uint64_t requested = state.load(std::memory_order_relaxed) - std::uint64_t{k_live};
  if (RTPOOL_UNLIKELY(static_cast<std::int64_t>(requested) < 0)) return false;
  Magazine& magazine = magazine_at(granted);
  const std::uint64_t word = magazine.word.get();
  if (RTPOOL_UNLIKELY(Magazine::place_in(word) == magazine.last)) return false;
  RTPOOL_OPAQUE(requested);  // Clang takes the state and k_live from the sum apart
  state.store(k_free, std::memory_order_relaxed);
  item_at(Magazine::place_in(word))[1] = {block, &state};
  magazine.word.set(word + Magazine::k_push);
  unaccount(granted, requested);
  lock.leave_fast();
  return true;
}

// Plain loads and stores, so that nothing here waits for the line: what does is in `send_outgoing`. `state` was live a moment ago.
[[gnu::always_inline]] inline bool Heap::free_later(Heap& owner, Slab& slab, State& state, unsigned unit, std::size_t granted,
                                                    std::size_t requested) noexcept {
  state.store(k_outgoing, std::memory_order_relaxed);
  count_given(granted, requested);
  const std::uint64_t count = outgoing_count_.get();
  const unsigned size_class = class_of(granted);
  outgoing_[count] = {&state, &slab, &owner.remote_slabs_[size_class], static_cast<std::uint16_t>(requested),
                      static_cast<std::uint8_t>(block_at_unit(size_class, unit))};
  outgoing_count_.set(count + 1);
  return count + 1 == k_outgoing_most || store_->prompt();
}

[[gnu::always_inline]] inline bool Heap::push_run_and_leave(std::uint64_t page, pages::PageDesc& desc) noexcept {
  const std::uint32_t pages = desc.pages;
  std::size_t bin = desc.run.use.bin;
  if (RTPOOL_UNLIKELY(bin_pages_[bin].folded() != pages)) return false;
  if (RTPOOL_UNLIKELY(base::folded_load(desc.run.next) != pages::k_live)) return false;
  const std::size_t granted = std::size_t{pages} * os::k_page_size;
  unaccount(granted, granted - desc.run.use.slack);
  desc.run.next.store(bin_heads_[bin], std::memory_order_relaxed);
  RTPOOL_OPAQUE(bin);
  bin_heads_[bin] = static_cast<pages::PageIndex>(page);
  lock.leave_fast();
  return true;
}

}  // namespace rtpool::blocks
