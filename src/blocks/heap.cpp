#include "blocks/heap.hpp"

#include <algorithm>
#include <new>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "blocks/heap_hit.hpp"

namespace rtpool::blocks {

using pages::k_no_page;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

Heap::Heap(pages::PageStore& store, unsigned index, bool symmetric, std::uint32_t attention) noexcept
    : lock(lock_guard_),
      slab_head_(pages::run_head(RunState::slab, index)),
      run_head_(pages::run_head(RunState::heap, index)),
      index_(index),
      base_(store.view().base),
      descs_(store.view().descs),
      store_(&store) {
  lock.initialise(symmetric, attention);
  for (PageIndex& head : bin_heads_) head = k_no_page;
  Item* next = items_;
  for (unsigned cls = 0; cls < k_classes; ++cls) {
    const unsigned capacity = cls == 0 ? 0 : magazine_capacity(cls);
    *next = {nullptr, nullptr};
    magazines_[cls].bottom = place_of(*next);
    magazines_[cls].last = place_of(next[capacity]);
    magazines_[cls].word.set(place_of(*next));
    next += capacity + 1;
  }
  RTPOOL_CHECK(next == items_ + k_items);
}

// --- small blocks -----------------------------------------------------------------------------------------------------

Slab*& Heap::list_of(const Slab& slab) noexcept {
  ClassState& cls = classes_[slab.size_class];
  return slab.is_empty() ? cls.empty : cls.partial;
}

void Heap::link(Slab& slab) noexcept {
  if (slab.free == 0) return;
  slab.aged = 0;
  Slab*& head = list_of(slab);
  slab.prev = nullptr;
  slab.next = head;
  if (head != nullptr) head->prev = &slab;
  head = &slab;
}

void Heap::unlink(Slab& slab) noexcept {
  if (slab.free == 0) return;
  if (ClassState& cls = classes_[slab.size_class]; cls.hand == &slab) cls.hand = slab.next;
  if (slab.next != nullptr) slab.next->prev = slab.prev;
  (slab.prev != nullptr ? slab.prev->next : list_of(slab)) = slab.next;
}

void Heap::put_back(Slab& slab, std::uint64_t blocks) noexcept {
  RTPOOL_ASSERT((slab.free & blocks) == 0);
  const bool moves = slab.free == 0 || (slab.free | blocks) == slab.all;
  if (moves) unlink(slab);
  slab.free |= blocks;
  if (moves) link(slab);
}

bool Heap::refill(unsigned size_class) noexcept {
  ClassState& cls = classes_[size_class];
  Magazine& magazine = magazines_[size_class];
  const unsigned room = magazine.room();
  Item* const top = item_at(magazine.top());
  const unsigned half = magazine_capacity(size_class) / 2;
  const unsigned wanted = room < half ? room : half;
  unsigned got = 0;
  while (got < wanted) {
    Slab* const slab = cls.partial != nullptr ? cls.partial : cls.empty;
    if (slab == nullptr) break;
    unlink(*slab);
    while (got < wanted && slab->free != 0) {
      const unsigned unit = slab->take();
      State& state = slab->states()[unit];
      base::prefetch_to_write(&state);  // handing the block out writes it, and who freed it may have been on another processor
      // From above, so that blocks come out in the order in which the slab has them.
      top[wanted - got] = {slab->base + std::size_t{unit} * k_unit, &state};
      ++got;
    }
    link(*slab);
  }
  for (unsigned i = 1; got < wanted && i <= got; ++i) top[i] = top[wanted - got + i];
  magazine.word.add(got * Magazine::k_push);
  return magazine.held() != 0;
}

bool Heap::add_slab(unsigned size_class, bool may_grow, pages::GrowthFailure* failure, std::size_t most) noexcept {
  const std::uint32_t count = slab_pages(size_class);
  void* const record = store_->take_record(Slab::record_bytes(size_class), may_grow);
  if (record == nullptr) {
    *failure = {pages::GrowthStep::metadata, 12};
    return false;
  }
  pages::PageRuns::Taken run = store_->take(count);
  if (run.first == k_no_page && may_grow) run = store_->take_or_grow(count, failure, most);
  if (run.first == k_no_page) {
    store_->give_record(record, Slab::record_bytes(size_class));
    return false;
  }
  auto* const slab = new (record) Slab;
  slab->initialise(base_ + std::size_t{run.first} * os::k_page_size, run.first, size_class);
  for (PageIndex page = run.first; page < run.first + count; ++page) {
    PageDesc& desc = descs_[page];
    desc.in_slab = {static_cast<std::uint16_t>(class_bytes(size_class)), static_cast<std::uint16_t>(page - run.first)};
    desc.states = reinterpret_cast<std::uintptr_t>(slab->states()) - run.first * k_page_units * sizeof(State);
    desc.head.store(head_of(RunState::slab), std::memory_order_release);
  }
  link(*slab);
  owned_bytes_ += std::size_t{count} * os::k_page_size;
  return true;
}

void Heap::release_slab(Slab& slab, pages::Epoch used) noexcept {
  unlink(slab);
  const PageIndex first = slab.first_page;
  const std::uint32_t count = slab.pages;
  owned_bytes_ -= std::size_t{count} * os::k_page_size;
  for (PageIndex page = first; page < first + count; ++page) descs_[page].set(RunState::none);
  store_->give_record(&slab, Slab::record_bytes(slab.size_class));
  store_->give_idle(first, count, false, used);
}

void Heap::spill(unsigned size_class, unsigned blocks) noexcept {
  Magazine& magazine = magazines_[size_class];
  Item* const bottom = item_at(magazine.bottom);
  const unsigned held = magazine.held();
  if (blocks > held) blocks = held;
  for (unsigned i = 1; i <= blocks; ++i) {  // the coldest first
    auto* const block = static_cast<char*>(bottom[i].block);
    const auto page = static_cast<PageIndex>(static_cast<std::size_t>(block - base_) / os::k_page_size);
    Slab& slab = *slab_of_page(descs_[page], page);
    put_back(slab, slab.bit_of(static_cast<unsigned>(static_cast<std::size_t>(block - slab.base) / k_unit)));
  }
  for (unsigned i = 1; i + blocks <= held; ++i) bottom[i] = bottom[i + blocks];
  magazine.word.sub(blocks * Magazine::k_push);
}

void Heap::free_small(Slab& slab, unsigned unit) noexcept {
  Magazine& magazine = magazines_[slab.size_class];
  if (magazine.room() == 0) spill(slab.size_class, magazine_capacity(slab.size_class) / 2);
  State& state = slab.states()[unit];
  const std::uint32_t was = state.load(std::memory_order_relaxed);
  state.store(k_free, std::memory_order_relaxed);
  item_at(magazine.top())[1] = {slab.base + std::size_t{unit} * k_unit, &state};
  magazine.word.add(Magazine::k_push);
  unaccount(class_bytes(slab.size_class), was & k_small_size_mask);
}

void Heap::raise_peak() noexcept {
  if (const auto bytes = static_cast<std::int64_t>(headroom_bytes_.get()); bytes < 0) {
    stats.peak_bytes.add(static_cast<std::uint64_t>(-bytes));
    headroom_bytes_.set(0);
  }
  if (const auto count = static_cast<std::int64_t>(headroom_count_.get()); count < 0) {
    stats.peak_count.add(static_cast<std::uint64_t>(-count));
    headroom_count_.set(0);
  }
}

void Heap::reset_peak() noexcept {
  stats.peak_bytes.set(live_bytes());
  stats.peak_count.set(live_count());
  headroom_bytes_.set(0);
  headroom_count_.set(0);
}

void Heap::totals(std::uint64_t* count, std::uint64_t* bytes) const noexcept {
  std::uint64_t blocks = 0;
  std::uint64_t sum = 0;
  // A heap that misses without pause may move bins each time; after a few tries its last sum has to do.
  for (int attempt = 0; attempt < 64; ++attempt) {
    const std::uint64_t moves = moves_.get();
    std::atomic_thread_fence(std::memory_order_acquire);
    blocks = stats.other_count.get();
    sum = stats.other_bytes.get();
    for (unsigned cls = 1; cls < k_classes; ++cls) {
      const std::uint64_t pops = magazines_[cls].pops();
      blocks += pops;
      sum += pops * class_bytes(cls);
    }
    for (unsigned bin = 0; bin < k_bins; ++bin) {
      const std::uint64_t pops = bin_pops_[bin].get();
      blocks += pops;
      sum += pops * bin_pages_[bin] * os::k_page_size;
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (moves % 2 == 0 && moves_.get() == moves) break;
  }
  *count += blocks;
  *bytes += sum;
}

// --- large blocks -----------------------------------------------------------------------------------------------------

bool Heap::find_bin(std::uint64_t pages) noexcept {
  const unsigned first = set_of(pages);
  if (bin_pages_[first] == pages) return true;
  for (unsigned bin = first + k_bin_sets; bin < k_bins; bin += k_bin_sets) {
    if (bin_pages_[bin] != pages) continue;
    begin_move();
    const WholeBin found = bin_at(bin);
    put_bin(bin, bin_at(first));
    put_bin(first, found);
    end_move();
    return true;
  }
  return false;
}

// For a page count that has none. False: all ways of the set have free runs.
bool Heap::claim_bin(std::uint32_t pages) noexcept {
  const unsigned first = set_of(pages);
  unsigned room = first;
  // The other ways by turns: what was in front stays for a while.
  for (unsigned way = 1; way < k_bin_ways; ++way) {
    const unsigned bin = first + (1 + (claims_ + way) % (k_bin_ways - 1)) * k_bin_sets;
    if (bin_heads_[bin] == k_no_page && (room == first || bin_pages_[bin] == 0)) room = bin;
  }
  if (room == first && bin_heads_[first] != k_no_page) return false;
  if (bin_pages_[first] == 0) room = first;
  ++claims_;
  begin_move();
  // The room's old page count goes; what it handed out stays counted.
  stats.other_count.add(bin_pops_[room].get());
  stats.other_bytes.add(bin_pops_[room].get() * bin_pages_[room] * os::k_page_size);
  if (room != first) put_bin(room, bin_at(first));
  put_bin(first, {pages, k_no_page, 0, {k_fresh, 0, 1}});
  end_move();
  return true;
}

// The bin that a block which is made now is freed to: claimed now, so that the free finds it where hits look.
std::uint16_t Heap::bin_of_new(std::uint32_t pages, bool has_bin) noexcept {
  const std::uint64_t peaks = k_wandering_peaks * (stats.peak_bytes.get() / os::k_page_size);
  const std::uint64_t most = peaks > k_wandering ? peaks : k_wandering;
  const auto misses = static_cast<std::uint32_t>(stats.misses.get());
  Asked& asked = asked_at(pages);
  const bool remembered = asked.pages == pages;
  const bool soon = remembered & (std::uint64_t{misses - asked.miss} * pages <= k_worth_keeping);
  asked = {pages, misses};
  // Without jumps, as sizes that wander are known or not at random.
  const std::uint64_t less = strange_ - std::min<std::uint64_t>(pages, strange_);
  const std::uint64_t more = std::min(strange_ + 2 * std::uint64_t{pages}, 2 * most);
  strange_ = (has_bin | remembered) ? less : more;
  wanders_ = strange_ > most;
  if (!has_bin) return (!wanders_ | soon) && (find_bin(pages) || claim_bin(pages)) ? set_of(pages) : k_no_bin;
  const std::uint16_t bin = set_of(pages);
  const auto pops = static_cast<std::uint32_t>(bin_pops_[bin].get());
  const bool popped = pops != bin_uses_[bin].asked_pops;
  bin_uses_[bin].asked_pops = pops;
  return (!wanders_ | soon | popped) ? bin : k_no_bin;
}

// The left neighbour's descriptor mostly lies in the run's line, the right one's does not, and is wanted soon.
void Heap::depart(PageIndex first, bool zero) noexcept {
  PageDesc& desc = descs_[first];
  base::prefetch_to_write(&descs_[first + desc.pages]);
  desc.run.use.slack = zero ? pages::k_slack_zero : std::uint16_t{0};
  desc.run.next.store(departing_, std::memory_order_relaxed);
  departing_ = first;
  departing_pages_ += desc.pages;
  departing_count_.add(1);
}

PageIndex Heap::take_departing(unsigned most) noexcept {
  const PageIndex runs = departing_;
  PageIndex last = k_no_page;
  unsigned taken = 0;
  for (; taken != most && departing_ != k_no_page; ++taken) {
    last = departing_;
    const PageDesc& desc = descs_[last];
    departing_pages_ -= desc.pages;
    owned_bytes_ -= desc.pages * os::k_page_size;
    departing_ = desc.run.next.load(std::memory_order_relaxed);
  }
  if (taken != 0) descs_[last].run.next.store(k_no_page, std::memory_order_relaxed);
  departing_count_.sub(taken);
  return runs;
}

void Heap::cache_run(PageIndex first, bool zero) noexcept {
  PageDesc& desc = descs_[first];
  if (desc.run.use.bin == k_no_bin || !(find_bin(desc.pages) || claim_bin(desc.pages))) {
    depart(first, zero);
    if (departing_pages_ * os::k_page_size * k_departing_share > owned_bytes_ || store_->prompt()) {
      store_->give_all_soon(take_departing());
    } else if (departing_count_.get() == k_departing_most) {
      store_->give_all_soon(take_departing(k_departing_most / 2));
    }
    return;
  }
  const std::uint16_t bin = set_of(desc.pages);
  desc.run.next.store(bin_heads_[bin], std::memory_order_relaxed);
  desc.run.use = {zero ? pages::k_slack_zero : std::uint16_t{0}, bin};
  bin_heads_[bin] = first;
}

void Heap::free_run(PageIndex first) noexcept {
  const PageDesc& desc = descs_[first];
  const std::uint16_t slack = desc.run.use.slack;
  const std::size_t granted = std::size_t{desc.pages} * os::k_page_size;
  unaccount(granted, granted - (slack & pages::k_slack_mask));
  cache_run(first, (slack & pages::k_slack_zero) != 0);
}

void* Heap::adopt_run(const pages::PageRuns::Taken& run, std::uint32_t pages, std::size_t size, bool has_bin) noexcept {
  PageDesc& desc = descs_[run.first];
  owned_bytes_ += std::size_t{desc.pages} * os::k_page_size;
  const std::uint16_t bin = bin_of_new(pages, has_bin);
  for (std::uint32_t rest = desc.pages - pages; rest != 0;) {
    const PageIndex next = run.first + desc.pages - rest;
    const std::uint32_t length = pages < rest ? pages : rest;
    descs_[next].pages = length;
    descs_[next].run.use.bin = set_of(length);
    descs_[next].head.store(head_of(RunState::heap), std::memory_order_relaxed);
    cache_run(next, run.zero);
    rest -= length;
  }
  const std::size_t granted = std::size_t{pages} * os::k_page_size;
  desc.pages = pages;
  desc.run.use.bin = bin;
  desc.set_live(granted - size);
  desc.head.store(head_of(RunState::heap), std::memory_order_release);
  stats.other_count.add(1);
  stats.other_bytes.add(granted);
  if (account(granted, size) == Pop::new_peak) raise_peak();
  return base_ + std::size_t{run.first} * os::k_page_size;
}

std::size_t Heap::zero_cached(std::uint32_t pages, std::size_t blocks, std::size_t max_bytes) noexcept {
  if (!find_bin(pages)) return 0;
  const std::size_t bytes = std::size_t{pages} * os::k_page_size;
  std::size_t cleared = 0;
  for (PageIndex p = bin_heads_[set_of(pages)]; p != k_no_page && blocks-- != 0; p = descs_[p].run.next.load(std::memory_order_relaxed)) {
    PageDesc& desc = descs_[p];
    if ((desc.run.use.slack & pages::k_slack_zero) != 0) continue;
    if (cleared + bytes > max_bytes) break;
    __builtin_memset(base_ + std::size_t{p} * os::k_page_size, 0, bytes);
    desc.run.use.slack |= pages::k_slack_zero;
    cleared += bytes;
  }
  return cleared;
}

}  // namespace rtpool::blocks
