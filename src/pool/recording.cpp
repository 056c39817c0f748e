// What a pool tells the recorder, and how that begins and ends. No hit path knows of it: a recorded pool's heaps have a bit in
// `attention` that sends every hit to the slow path, as learning has.
#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "blocks/heap_hit.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"
#include "trace/recorder.hpp"

namespace rtpool::pool {
namespace {

std::atomic<bool> g_all{false};

}  // namespace

std::uint64_t PoolImpl::recorder_number() const noexcept { return trace::recorder().number(); }

void PoolImpl::note_allocation(const Told& told, const void* block, std::size_t size, bool zeroed, unsigned how) noexcept {
  const bool ours = block != nullptr && contains(block);
  const unsigned kind = trace::allocation_kind(trace::outcome_of(block, ours, told.missed), zeroed, how);
  trace::recorder().allocated(told.recording, ours ? &origins_ : nullptr, block, size, kind, may_wait());
}

void PoolImpl::note_free(const void* block, std::size_t size, unsigned how) noexcept {
  trace::recorder().freeing(contains(block) ? &origins_ : nullptr, block, size, trace::k_free | how, may_wait());
}

// The heaps are stopped.
void PoolImpl::note_live_blocks() noexcept {
  trace::Recorder& recorder = trace::recorder();
  const std::uint64_t time = recorder.now();
  const auto note = [&](const void* block, std::size_t size) {
    recorder.alive(contains(block) ? &origins_ : nullptr, block, size, time);
  };
  if (debug_ != nullptr) {
    const std::size_t count = debug_->outstanding(nullptr, 0);
    auto* const blocks = static_cast<LiveBlock*>(std::calloc(count == 0 ? 1 : count, sizeof(LiveBlock)));
    if (blocks == nullptr) return;
    const std::size_t filled = std::min(count, debug_->outstanding(blocks, count));
    for (std::size_t i = 0; i < filled; ++i) note(blocks[i].address, blocks[i].size);
    std::free(blocks);
    return;
  }
  hold_pages();
  const pages::PageIndex committed = store_.committed_pages();
  const pages::ArenaView& view = store_.view();
  for (pages::PageIndex page = 0; page < committed;) {
    const pages::PageDesc& desc = view.descs[page];
    if (desc.state() != pages::RunState::slab) {
      char* const block = view.base + std::size_t{page} * os::k_page_size;
      if (const Found found = find_block(block); found.place == Place::live) note(block, found.requested);
      page += desc.pages;
      continue;
    }
    const blocks::Slab& slab = *blocks::slab_of_page(desc, page);
    for (unsigned unit = 0; unit < blocks::slab_units(slab.size_class); unit += slab.size_class) {
      char* const block = slab.base + std::size_t{unit} * blocks::k_unit;
      if (const Found found = find_block(block); found.place == Place::live) note(block, found.requested);
    }
    page += slab.pages;
  }
  let_pages_go();
  fallback_table_.for_each(note);
}

int Pool::begin_recording() noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard guard(self.control_lock_);
  if (recording()) return 0;
  if (const int error = self.origins_.begin(*self.memory_, self.store_.view().base, self.store_.reserved()); error != 0) return error;
  if (frozen()) (void)self.origins_.make_resident(*self.memory_, self.store_.view().committed.load(std::memory_order_relaxed));
  pages::PageStore& store = self.store_;
  trace::recorder().pool_begins(trace::k_pool_item,
                                {store.view().id, store.view().base, store.reserved(), store.capacity(), self.options_.name});
  self.stop_heaps();
  self.recording_.store(&self.origins_, std::memory_order_release);
  self.set_attention(blocks::k_recording, true);
  self.note_live_blocks();
  self.resume_heaps();
  return 0;
}

void Pool::end_recording() noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard guard(self.control_lock_);
  if (!recording()) return;
  self.recording_.store(nullptr, std::memory_order_release);
  self.set_attention(blocks::k_recording, false);
  if (!any_frozen()) self.origins_.discard(*self.memory_);
}

bool Pool::recording() const noexcept { return impl(*this).recording_.load(std::memory_order_acquire) != nullptr; }

std::uint32_t Pool::origin(const void* block, std::uint64_t* age) const noexcept {
  const PoolImpl& self = impl(*this);
  const std::size_t size = self.debug_ != nullptr ? self.debug_->usable_size(block) : self.find_block(block).requested;
  if (!recording() || size == 0 || !self.origins_.covers(block)) return 0;
  const std::uint64_t word = self.origins_.get(block, size);
  *age = trace::Origin::age(word, trace::recorder().now());
  return trace::Origin::place(word);
}

int Pool::record_all() noexcept {
  g_all.store(true, std::memory_order_release);
  int error = 0;
  registry_each([](PoolImpl& pool, void* result) noexcept {
    if (const int failed = pool.begin_recording(); failed != 0) *static_cast<int*>(result) = failed;
  }, &error);
  return error;
}

void Pool::record_none() noexcept {
  g_all.store(false, std::memory_order_release);
  registry_each([](PoolImpl& pool, void*) noexcept { pool.end_recording(); }, nullptr);
}

void PoolImpl::join_recording() noexcept {
  if (g_all.load(std::memory_order_acquire)) (void)begin_recording();
}

void PoolImpl::forget_recording() noexcept {
  recording_.store(nullptr, std::memory_order_relaxed);
  set_attention(blocks::k_recording, false);
}

void forget_recordings() noexcept { g_all.store(false, std::memory_order_relaxed); }

}  // namespace rtpool::pool
