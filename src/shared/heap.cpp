#include "shared/heap.hpp"

#include <cstdlib>
#include <new>

#include "base/bits.hpp"
#include "os/libc_malloc.hpp"

namespace rtpool::shared {
namespace {

constexpr std::uint32_t k_slab_blocks = 8;        // at least, where there is room
constexpr std::uint64_t k_slab_bytes = 16384;     // at least
constexpr std::uint32_t k_most_blocks = 65535;    // indices are 16 bits

std::size_t words_for(std::uint32_t blocks) noexcept { return (blocks + 63) / 64; }

// What describes blocks that begin at `start`, in one allocation; nullptr without memory.
Run* describe(std::uint64_t start, std::uint32_t block_bytes, std::uint32_t capacity) noexcept {
  const std::size_t words = words_for(capacity);
  void* const memory = std::calloc(1, sizeof(Run) + words * 24 + capacity * (4 + 4 + 2));
  if (memory == nullptr) return nullptr;
  Run* const run = new (memory) Run;
  run->block_bytes = block_bytes;
  run->capacity = capacity;
  run->start = start;
  run->live = reinterpret_cast<std::uint64_t*>(run + 1);
  run->pinned = run->live + words;
  run->gone = run->pinned + words;
  run->requested = reinterpret_cast<std::uint32_t*>(run->gone + words);
  run->records = run->requested + capacity;
  run->stack = reinterpret_cast<std::uint16_t*>(run->records + capacity);
  return run;
}

}  // namespace

Heap* Heap::make(Segment& segment, Granules& granules, Tenancy tenancy) noexcept {
  auto* const run_of = static_cast<Run**>(std::calloc(segment.geometry().granules, sizeof(Run*)));
  void* const room = std::malloc(sizeof(Heap));
  if (run_of == nullptr || room == nullptr) {
    std::free(run_of);
    std::free(room);
    return nullptr;
  }
  Heap* const heap = new (room) Heap;
  heap->segment_ = &segment;
  heap->claimed_ = &granules;
  heap->tenancy_ = tenancy;
  heap->shift_ = segment.geometry().granule_shift;
  heap->small_limit_ = small_limit(segment.geometry().granule_bytes());
  heap->run_of_ = run_of;
  return heap;
}

void Heap::prefault() noexcept { os::touch_zeros(run_of_, segment_->geometry().granules * sizeof(Run*)); }

void Heap::destroy() noexcept {
  for (std::uint32_t g = 0; g < segment_->geometry().granules; ++g) {
    if (run_of_[g] != nullptr) discard(run_of_[g]);
  }
  for (Run* const run : borrowed_) std::free(run);
  borrowed_.clear();
  std::free(run_of_);
  this->~Heap();
  std::free(this);
}

std::uint64_t Heap::take(std::uint64_t size) noexcept {
  return size <= small_limit_ ? take_small(size) : take_large(size);
}

std::uint64_t Heap::take_small(std::uint64_t size) noexcept {
  const unsigned size_class = class_of(size);
  Run* next = nullptr;
  for (Run* run = slabs_[size_class]; run != nullptr; run = next) {
    next = run->next;
    if (run->use == RunUse::busy || wake(run)) return take_from(run, size);
  }
  return k_no_block;
}

std::uint64_t Heap::take_large(std::uint64_t size) noexcept {
  if (size > segment_->geometry().data_bytes) return k_no_block;
  const std::uint32_t granules = granules_for(size);
  Run* next = nullptr;
  for (Run* run = large_[granules < 256 ? granules : 256 + granules % 256]; run != nullptr; run = next) {
    next = run->next;
    if (run->granules == granules && wake(run)) {
      unlink(run);
      return take_from(run, size);
    }
  }
  return k_no_block;
}

std::uint64_t Heap::take_from(Run* run, std::uint64_t size) noexcept {
  const std::uint32_t index = run->stacked != 0 ? run->stack[--run->stacked] : run->fresh++;
  run->live[index / 64] |= std::uint64_t{1} << index % 64;
  if (++run->used == run->capacity && run->listed) unlink(run);
  const Block block{run, index};
  if (run->large()) run->large_requested = size;
  else run->requested[index] = static_cast<std::uint32_t>(size);
  account_taken(granted(block), size);
  return offset_of(block);
}

void Heap::account_taken(std::uint64_t granted, std::uint64_t requested) noexcept {
  counts_.current_bytes += granted;
  counts_.requested_bytes += requested;
  counts_.total_bytes += granted;
  ++counts_.total_count;
  if (++counts_.current_count > counts_.peak_count) counts_.peak_count = counts_.current_count;
  if (counts_.current_bytes > counts_.peak_bytes) counts_.peak_bytes = counts_.current_bytes;
}

void Heap::set_requested(Block block, std::uint64_t size) noexcept {
  counts_.requested_bytes += size - requested(block);
  if (RTPOOL_UNLIKELY(block.borrowed())) counts_.recorded_requested_bytes += size - requested(block);
  if (block.run->large()) block.run->large_requested = size;
  else block.run->requested[block.index] = static_cast<std::uint32_t>(size);
}

// SP-1: out of the idle state, or back from being lent. A run that was stolen is forgotten; one that others look at just
// now stays as it is.
bool Heap::wake(Run* run) noexcept {
  const bool lent = run->use == RunUse::lent;
  if (lent ? claimed_->take_lent(tenancy_, run->first, run->granules)
           : claimed_->take_idle(tenancy_, run->first, run->granules)) {
    run->use = RunUse::busy;
    return true;
  }
  if (!lent || !claimed_->looked_at(tenancy_, run->first, run->granules)) discard(run);
  return false;
}

// SP-1, after a block of the run was given or let go.
void Heap::settle(Run* run) noexcept {
  if (run->use != RunUse::busy || run->used != run->let_go) return;
  if (run->used != 0) {
    if (claimed_->lend(tenancy_, run->first, run->granules)) run->use = RunUse::lent;
  } else if (claimed_->offer_idle(tenancy_, run->first, run->granules)) {
    run->use = RunUse::idle;
  }
}

std::uint64_t Heap::take_new(std::uint64_t size) noexcept {
  if (size > segment_->geometry().data_bytes) return k_no_block;
  if (size > small_limit_) {
    Run* const run = make_run(granules_for(size), 0, 0);
    return run == nullptr ? k_no_block : take_from(run, size);
  }
  Run* const run = claim_slab(class_of(size));
  if (run == nullptr) return k_no_block;
  link(run);
  return take_from(run, size);
}

Run* Heap::claim_slab(unsigned size_class) noexcept {
  const auto block = static_cast<std::uint32_t>(class_bytes(size_class));
  const std::uint64_t wanted = std::uint64_t{block} * k_slab_blocks;
  Run* const run = make_run(granules_for(wanted < k_slab_bytes ? k_slab_bytes : wanted), block, size_class);
  // In a pool that is nearly full one block is better than none.
  return run != nullptr || granules_for(block) == granules_for(wanted) ? run : make_run(granules_for(block), block, size_class);
}

// A claimed run and what describes it.
Run* Heap::make_run(std::uint32_t granules, std::uint32_t block_bytes, std::uint32_t size_class) noexcept {
  const std::uint64_t bytes = std::uint64_t{granules} << shift_;
  const std::uint64_t fit = block_bytes == 0 ? 1 : bytes / block_bytes;
  Run* const run = describe(0, block_bytes, static_cast<std::uint32_t>(fit < k_most_blocks ? fit : k_most_blocks));
  if (run == nullptr) return nullptr;
  const std::uint32_t first = claimed_->claim(tenancy_, granules, block_bytes != 0);
  // Where there is a live block somebody wrote over our words: that is not handed out again, and stays claimed.
  if (first == k_none || !make_way(first, granules)) {
    std::free(run);
    return nullptr;
  }
  run->first = first;
  run->granules = granules;
  run->size_class = size_class;
  run->start = std::uint64_t{first} << shift_;
  for (std::uint32_t i = 0; i < granules; ++i) run_of_[first + i] = run;
  ++counts_.claims;
  return run;
}

// SP-2: forgets what this process had in granules that were stolen. False, and nothing is done: it has live blocks there.
bool Heap::make_way(std::uint32_t first, std::uint32_t granules) noexcept {
  for (std::uint32_t i = 0; i < granules; ++i) {
    const Run* const there = run_of_[first + i];
    if (there != nullptr && there->used != there->let_go) return false;
  }
  for (std::uint32_t i = 0; i < granules; ++i) {
    if (run_of_[first + i] != nullptr) discard(run_of_[first + i]);
  }
  return true;
}

// With it go the blocks it was lent with: nobody holds them any more, or it would not have been stolen.
void Heap::discard(Run* run) noexcept {
  if (run->listed) unlink(run);
  for (std::uint32_t i = 0; run->used != 0 && i < run->fresh; ++i) {
    if (is_live(*run, i)) account_given({run, i}, true);
  }
  for (std::uint32_t i = 0; i < run->granules; ++i) {
    if (run_of_[run->first + i] == run) run_of_[run->first + i] = nullptr;
  }
  std::free(run);
}

Run** Heap::list_of(const Run* run) noexcept {
  if (!run->large()) return &slabs_[run->size_class];
  return &large_[run->granules < 256 ? run->granules : 256 + run->granules % 256];
}

void Heap::link(Run* run) noexcept {
  Run** const head = list_of(run);
  run->previous = nullptr;
  run->next = *head;
  if (*head != nullptr) (*head)->previous = run;
  *head = run;
  run->listed = true;
}

void Heap::unlink(Run* run) noexcept {
  if (run->previous != nullptr) run->previous->next = run->next;
  else *list_of(run) = run->next;
  if (run->next != nullptr) run->next->previous = run->previous;
  run->listed = false;
}

void Heap::account_given(Block block, bool stolen) noexcept {
  if (RTPOOL_UNLIKELY(ended_.told != nullptr)) ended_.told(ended_.context, offset_of(block), requested(block), stolen);
  if (RTPOOL_UNLIKELY(block.let_go())) hold_again(block);
  counts_.current_bytes -= granted(block);
  counts_.requested_bytes -= requested(block);
  --counts_.current_count;
  --block.run->used;
}

void Heap::give(Block block) noexcept {
  Run* const run = block.run;
  account_given(block, false);
  const std::uint64_t bit = std::uint64_t{1} << block.index % 64;
  run->live[block.index / 64] &= ~bit;
  run->pinned[block.index / 64] &= ~bit;
  run->stack[run->stacked++] = static_cast<std::uint16_t>(block.index);
  if (!run->listed) link(run);
  settle(run);
}

void Heap::let_go(Block block) noexcept {
  block.run->gone[block.index / 64] |= std::uint64_t{1} << block.index % 64;
  ++block.run->let_go;
  counts_.recorded_bytes += granted(block);
  counts_.recorded_requested_bytes += requested(block);
  ++counts_.recorded_count;
  settle(block.run);
}

void Heap::hold_again(Block block) noexcept {
  block.run->gone[block.index / 64] &= ~(std::uint64_t{1} << block.index % 64);
  --block.run->let_go;
  counts_.recorded_bytes -= granted(block);
  counts_.recorded_requested_bytes -= requested(block);
  --counts_.recorded_count;
}

Block Heap::borrow(std::uint64_t offset, std::uint64_t bytes, std::uint32_t record, std::uint64_t size) noexcept {
  const auto first = static_cast<std::uint32_t>(offset >> shift_);
  const auto last = static_cast<std::uint32_t>((offset + bytes - 1) >> shift_);
  if (bytes > small_limit_ || size > bytes || !make_way(first, last - first + 1)) return {};  // SP-4
  Run* const run = describe(offset, static_cast<std::uint32_t>(bytes), 1);
  if (run == nullptr || !borrowed_.add(run)) {
    std::free(run);
    return {};
  }
  run->borrowed = true;
  run->live[0] = run->used = run->fresh = 1;
  run->requested[0] = static_cast<std::uint32_t>(size);
  run->records[0] = record + 1;
  account_taken(bytes, size);
  counts_.recorded_bytes += bytes;
  counts_.recorded_requested_bytes += size;
  ++counts_.recorded_count;
  counts_.borrowed_bytes += bytes;
  ++counts_.borrowed_count;
  return {run, 0};
}

void Heap::give_back(Block block) noexcept {
  counts_.recorded_bytes -= granted(block);
  counts_.recorded_requested_bytes -= requested(block);
  --counts_.recorded_count;
  counts_.borrowed_bytes -= granted(block);
  --counts_.borrowed_count;
  account_given(block, false);
  borrowed_.remove(block.run);
  std::free(block.run);
}

Block Heap::find_own(std::uint64_t offset) const noexcept {
  const Block block = find_own_around(offset);
  return block && offset_of(block) == offset ? block : Block{};
}

Block Heap::find_own_around(std::uint64_t offset) const noexcept {
  Run* const run = run_of_[offset >> shift_];
  if (run == nullptr) return {};
  const std::uint64_t into = offset - run->start;
  const std::uint64_t index = run->large() ? 0 : static_cast<std::uint32_t>(into) / run->block_bytes;
  if (index >= run->fresh || !is_live(*run, static_cast<std::uint32_t>(index))) return {};
  return {run, static_cast<std::uint32_t>(index)};
}

Block Heap::find(std::uint64_t offset) const noexcept {
  const Block block = find_around(offset);
  return block && offset_of(block) == offset ? block : Block{};
}

Block Heap::find_around(std::uint64_t offset) const noexcept {
  if (const Block own = find_own_around(offset)) return own;
  Run* const run = borrowed_.find(offset);
  return run == nullptr ? Block{} : Block{run, 0};
}

std::uint64_t Heap::trim() noexcept {
  std::uint64_t freed = 0;
  for (std::uint32_t g = 0; g < segment_->geometry().granules; ++g) {
    Run* const run = run_of_[g];
    if (run == nullptr || run->used != 0 || run->first != g || run->use == RunUse::busy || !wake(run)) continue;
    freed += std::uint64_t{run->granules} << shift_;
    const std::uint32_t granules = run->granules;
    discard(run);
    claimed_->release(tenancy_, g, granules);
  }
  return freed;
}

void Heap::pin_all() noexcept {
  for_each_run([](Run* run) {
    for (std::size_t i = 0; i < words_for(run->capacity); ++i) run->pinned[i] |= run->live[i];
  });
}

void Heap::unpin_all() noexcept {
  for_each_run([](Run* run) {
    for (std::size_t i = 0; i < words_for(run->capacity); ++i) run->pinned[i] = 0;
  });
}

void Heap::reset_peak() noexcept {
  counts_.peak_bytes = counts_.current_bytes;
  counts_.peak_count = counts_.current_count;
}

Heap::Prospect Heap::prospect(std::uint32_t granule, std::size_t largest) const noexcept {
  const std::uint64_t word = segment_->granule(granule).load(std::memory_order_relaxed);
  if (word == 0) return Prospect::free;
  const Run* const run = GranuleWord::tenancy(word) == tenancy_ ? run_of_[granule] : nullptr;
  return run != nullptr && !run->large() && run->block_bytes <= largest ? Prospect::slab : Prospect::none;
}

std::uint32_t Heap::check(const char** id) const noexcept {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
  for (std::uint32_t g = 0; g < segment_->geometry().granules; ++g) {
    Run* const run = run_of_[g];
    if (run == nullptr || run->first != g) continue;
    std::uint32_t used = 0;
    for (std::size_t i = 0; i < words_for(run->capacity); ++i) used += static_cast<std::uint32_t>(std::popcount(run->live[i]));
    std::uint32_t gone = 0;
    for (std::size_t i = 0; i < words_for(run->capacity); ++i) gone += static_cast<std::uint32_t>(std::popcount(run->gone[i] & run->live[i]));
    const std::uint64_t word = segment_->granule(g).load();
    const bool taken = word == GranuleWord::head(tenancy_, run->granules);
    const bool kept = used != gone && run->use == RunUse::busy;
    *id = "SP-1";
    if (used != run->used || gone != run->let_go || used > run->fresh || run->fresh - run->stacked != used) return g;
    if (used != gone && (run->use == RunUse::idle || (kept && !taken))) return g;
    *id = "SP-2";
    for (std::uint32_t i = 1; i < run->granules; ++i) {
      if (kept && segment_->granule(g + i).load() != GranuleWord::part(tenancy_)) return g + i;
    }
    count += used;
    bytes += used * (run->large() ? std::uint64_t{run->granules} << shift_ : run->block_bytes);
  }
  *id = "SP-4";
  for (const Run* const run : borrowed_) {
    const std::uint32_t g = static_cast<std::uint32_t>(run->start >> shift_);
    if (run_of_[g] != nullptr || run->used != 1 || (run->live[0] & 1) == 0 || run->let_go != 0) return g;
    ++count;
    bytes += run->block_bytes;
  }
  *id = "SP-3";
  return count == counts_.current_count && bytes == counts_.current_bytes ? k_none : 0;
}

}  // namespace rtpool::shared
