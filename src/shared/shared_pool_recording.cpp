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
std::uint64_t g_visits = 0;  // under the registry's lock

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
  trace::recorder().add_pool_name(trace::k_shared_pool_item,
                                  {pool::new_pool_id(), data(), geometry().data_bytes, geometry().data_bytes, name()});
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
    watch_ends();
  }
  for (std::size_t i = 0; i < count; ++i) trace::recorder().alive(live[i].ours ? &origins_ : nullptr, live[i].block, live[i].size, time);
  std::free(live);
  return 0;
}

void SharedPool::end_recording() noexcept {
  Section section(*this);
  recording_ = 0;
  watch_ends();
}

std::uint64_t SharedPool::recording_now() noexcept {
  Section section(*this);
  return recording_;
}

// The pool goes, in this process: what it still has others hold.
void SharedPool::tell_what_is_left() noexcept {
  Section section(*this);
  if (recording_ == 0 || heap_ == nullptr) return;
  section.set_elsewhere(true);
  heap_->for_each_live([&](std::uint64_t offset, std::uint64_t size) { section.note(data() + offset, size, false); });
  recording_ = 0;
  watch_ends();
}

// With a reference of each pool instead of the registry's lock: what `function` tells the recorder may wait for locks that a fork
// takes before that one.
template <class Function>
void SharedPool::for_each_held(Function&& function) noexcept {
  std::uint64_t visit = 0;
  for (;;) {
    SharedPool* next = nullptr;
    {
      const Registry::Lock registry;
      if (visit == 0) visit = ++g_visits;
      for (SharedPool* pool = Registry::first(); pool != nullptr && next == nullptr; pool = Registry::next(pool)) {
        if (pool->visited_ == visit) continue;
        pool->visited_ = visit;
        if (pool->add_reference_if_any()) next = pool;
      }
    }
    if (next == nullptr) return;
    function(*next);
    next->drop_reference();
  }
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
