// What a shared pool tells the recorder, and how that begins and ends.
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "pool/registry.hpp"
#include "shared/registry.hpp"
#include "shared/section.hpp"

namespace rtpool::shared {
namespace {

std::atomic<bool> g_all{false};

// Of free memory: in a section that many bytes of small blocks may be new without a page fault for their origins.
constexpr std::size_t k_ready_small = std::size_t{64} << 20;

// A section in which the kernel must not be entered is the whole process's: shared pools have none of their own.
bool may_wait() noexcept { return !pool::Pool::any_frozen(); }

}  // namespace

void SharedPool::Section::note(const void* block, std::size_t size, bool stolen) noexcept {
  if (count_ == room_) {
    const std::size_t room = room_ * 8;
    auto* const grown = static_cast<trace::BlockEnd*>(std::realloc(more_, room * sizeof(trace::BlockEnd)));
    if (grown == nullptr) return trace::recorder().lose(1);
    if (more_ == nullptr) std::memcpy(grown, few_, sizeof few_);
    more_ = grown;
    room_ = room;
  }
  const bool elsewhere = elsewhere_ || stolen;
  const unsigned kind = trace::k_free | how_ | (elsewhere ? trace::k_remote : 0);
  trace::BlockEnd& end = (more_ != nullptr ? more_ : few_)[count_++];
  end = trace::recorder().end_of(&pool_.origins_, block, size, kind);
  end.elsewhere = elsewhere;
}

[[gnu::noinline]] void SharedPool::Section::tell() noexcept {
  const trace::BlockEnd* const ends = more_ != nullptr ? more_ : few_;
  for (std::size_t i = 0; i < count_; ++i) trace::recorder().ended(ends[i], may_wait());
  std::free(more_);
}

void SharedPool::note_allocation(std::uint64_t recording, const void* block, std::size_t size, bool zeroed, bool missed,
                                 unsigned how) noexcept {
  const bool ours = block != nullptr && contains(block);
  const unsigned kind = trace::allocation_kind(trace::outcome_of(block, ours, missed), zeroed, how);
  trace::recorder().allocated(recording, ours ? &origins_ : nullptr, block, size, kind, may_wait());
}

// Of memory that the fallback served.
void SharedPool::note_end(const void* block, std::size_t size, unsigned how) noexcept {
  trace::recorder().freeing(nullptr, block, size, trace::k_free | how, may_wait());
}

// Locked.
void SharedPool::watch_ends() noexcept {
  if (heap_ == nullptr) return;
  EndWatcher watcher;
  if (recording_ != 0) {
    watcher.context = this;
    watcher.told = [](void* context, std::uint64_t offset, std::uint64_t requested, bool stolen) noexcept {
      auto* const pool = static_cast<SharedPool*>(context);
      pool->section_->note(pool->data() + offset, requested, stolen);
    };
  }
  heap_->set_end_watcher(watcher);
}

int SharedPool::begin_recording() noexcept {
  pool::install_fork_handlers();
  if (recording()) return 0;
  if (const int error = origins_.begin(os::memory(), data(), geometry().data_bytes); error != 0) return error;
  pool::Pool::set_freeze_listener(prepare_for_section);
  const bool in_section = pool::Pool::any_frozen();
  if (in_section) prepare_origins();
  const std::uint64_t number = pool::new_pool_id();
  trace::recorder().pool_begins(trace::k_shared_pool_item, {number, data(), geometry().data_bytes, geometry().data_bytes, name()});
  struct Live {
    const void* block;
    std::size_t size;
    bool ours;
  };
  Live* live = nullptr;
  std::size_t count = 0;
  std::uint64_t time = 0;
  bool begun = false;
  for (std::size_t room = 0; !begun;) {
    std::free(live);
    live = static_cast<Live*>(std::calloc(room + 1, sizeof(Live)));
    if (live == nullptr) return ENOMEM;
    Section section(*this);
    if (recording_ != 0) break;
    const std::size_t wanted = (heap_ != nullptr ? heap_->counts().current_count : 0) + fallback_table_.count();
    begun = wanted <= room;
    room = wanted + wanted / 4 + 8;
    if (!begun) continue;
    const auto note = [&](const void* block, std::size_t size, bool ours) {
      if (count < wanted) live[count++] = {block, size, ours};
    };
    if (heap_ != nullptr) heap_->for_each_live([&](std::uint64_t offset, std::uint64_t size) { note(data() + offset, size, true); });
    fallback_table_.for_each([&](const void* block, std::size_t size) { note(block, size, false); });
    time = trace::recorder().now();
    recording_ = trace::recorder().number();
    traced_as_ = number;
    watch_ends();
  }
  // Whoever has frozen a pool since may have passed this one by.
  if (!in_section && pool::Pool::any_frozen()) prepare_origins();
  for (std::size_t i = 0; i < count; ++i) trace::recorder().alive(live[i].ours ? &origins_ : nullptr, live[i].block, live[i].size, time);
  std::free(live);
  return 0;
}

void SharedPool::end_recording() noexcept {
  {
    Section section(*this);
    if (recording_ == 0) return;
    recording_ = 0;
    watch_ends();
  }
  if (may_wait()) origins_.discard(os::memory());
}

// From `from` downwards, which is where new slabs are taken: what this process may have small blocks in; of free memory at most
// `room`. An empty one: there is nothing more.
SharedPool::AddressStretch SharedPool::next_small_stretch(std::uint32_t* from, std::size_t* room) noexcept {
  const std::size_t bytes = geometry().granule_bytes();
  AddressStretch found;
  Section section(*this);
  if (heap_ == nullptr) return found;
  while (*from != 0) {
    const Heap::Prospect prospect = heap_->prospect(*from - 1, trace::Origins::k_largest_small);
    const bool wanted = prospect == Heap::Prospect::slab || (prospect == Heap::Prospect::free && *room != 0);
    if (!wanted && found.end != 0) return found;
    --*from;
    if (!wanted) continue;
    if (prospect == Heap::Prospect::free) *room -= bytes < *room ? bytes : *room;
    if (found.end == 0) found.end = (*from + std::size_t{1}) * bytes;
    found.begin = *from * bytes;
  }
  return found;
}

// No place of an event may fault in a section. All of a pool's memory is there from the start, and most of it may never be
// used; an eighth of it, which is what origins of small blocks take, would be too much to hold.
void SharedPool::prepare_origins() noexcept {
  os::Memory& memory = os::memory();
  (void)origins_.make_resident(memory, trace::Origins::Table::large, 0, geometry().data_bytes);
  std::size_t room = k_ready_small;
  for (std::uint32_t from = geometry().granules; from != 0;) {
    const AddressStretch stretch = next_small_stretch(&from, &room);
    if (stretch.end == 0) return;
    (void)origins_.make_resident(memory, trace::Origins::Table::small, stretch.begin, stretch.end);
  }
}

std::uint64_t SharedPool::recording_now() noexcept {
  Section section(*this);
  return recording_;
}

// The pool goes, in this process: what it still has others hold.
void SharedPool::tell_what_is_left() noexcept {
  {
    Section section(*this);
    if (recording_ == 0) return;
    section.set_elsewhere(true);
    if (heap_ != nullptr) heap_->for_each_live([&](std::uint64_t offset, std::uint64_t size) { section.note(data() + offset, size, false); });
    recording_ = 0;
    watch_ends();
  }
  // While its addresses are still its own.
  trace::recorder().pool_ends(traced_as_);
}

// With a reference of each pool instead of the registry's lock: what `function` tells the recorder may wait for locks that a fork
// takes before that one. Who is held stays where it is in the registry; pools made meanwhile come in front of all others.
template <class Function>
void SharedPool::for_each_held(Function&& function) noexcept {
  for (SharedPool* at = nullptr;;) {
    SharedPool* next = nullptr;
    {
      const Registry::Lock registry;
      next = at == nullptr ? Registry::first() : Registry::next(at);
      while (next != nullptr && !next->add_reference_if_any()) next = Registry::next(next);
    }
    if (at != nullptr) at->drop_reference();
    if (next == nullptr) return;
    function(*next);
    at = next;
  }
}

void SharedPool::prepare_for_section() noexcept {
  for_each_held([](SharedPool& pool) {
    if (pool.recording()) pool.prepare_origins();
  });
}

int SharedPool::record_all() noexcept {
  Registry::install_fork_handlers();
  g_all.store(true, std::memory_order_release);
  int error = 0;
  for_each_held([&](SharedPool& pool) {
    if (const int failed = pool.begin_recording(); failed != 0) error = failed;
  });
  return error;
}

void SharedPool::record_none() noexcept {
  g_all.store(false, std::memory_order_release);
  for_each_held([](SharedPool& pool) { pool.end_recording(); });
}

void SharedPool::join_recording() noexcept {
  if (g_all.load(std::memory_order_acquire) && trace::recorder().running()) (void)begin_recording();
}

std::uint32_t SharedPool::origin(const void* address, std::uint64_t* age) noexcept {
  std::uint64_t offset = 0;
  if (!segment_.offset_of(address, &offset)) return 0;
  Section section(*this);
  const Block block = own_block(offset);
  if (!block || recording_ == 0) return 0;
  const std::uint64_t word = origins_.get(address, heap_->requested(block));
  *age = trace::Origin::age(word, trace::recorder().now());
  return trace::Origin::place(word);
}

void SharedPool::forget_recordings() noexcept {
  g_all.store(false, std::memory_order_relaxed);
  for (SharedPool* pool = Registry::first(); pool != nullptr; pool = Registry::next(pool)) {
    pool->recording_ = 0;
    pool->section_ = nullptr;
  }
}

}  // namespace rtpool::shared
