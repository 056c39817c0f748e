#include "objects/arenas.hpp"

#include <pthread.h>

#include <mutex>

#include "base/check.hpp"

namespace rtpool::objects {

using pool::Pool;

Arenas& arenas() noexcept {
  static constinit Arenas instance;  // nothing to destroy: arenas come back until the very end
  return instance;
}

void Arenas::set_source(const Source& source) noexcept { source_ = source; }

void Arenas::install_fork_handlers() noexcept {
  // After those of the pools, whose first one has been made by now, so that this lock is taken before theirs.
  static const int installed = ::pthread_atfork([]() { arenas().lock_.lock(); }, []() { arenas().lock_.unlock(); },
                                                []() { arenas().lock_.reset_after_fork(); });
  static_cast<void>(installed);
}

bool Arenas::enter(Pool& pool) noexcept {
  if (this == &arenas()) install_fork_handlers();
  const std::lock_guard guard(lock_);
  if (entered_count_ == k_most_entered) return false;
  pool.add_reference();
  entered_[entered_count_++] = &pool;
  return true;
}

void Arenas::leave(Pool& pool) noexcept {
  KeptOfSource* idle = nullptr;
  {
    const std::lock_guard guard(lock_);
    unsigned at = entered_count_;
    while (at != 0 && entered_[at - 1] != &pool) --at;
    if (at == 0) return;
    for (; at < entered_count_; ++at) entered_[at - 1] = entered_[at];
    --entered_count_;
    idle = detach_kept_locked();
  }
  give_to_source(idle);
  pool.drop_reference();
}

bool Arenas::serving() noexcept {
  const std::lock_guard guard(lock_);
  return entered_count_ != 0;
}

bool Arenas::has_entered(const Pool& pool) noexcept {
  const std::lock_guard guard(lock_);
  unsigned at = entered_count_;
  while (at != 0 && entered_[at - 1] != &pool) --at;
  return at != 0;
}

std::uint64_t Arenas::requests() noexcept {
  const std::lock_guard guard(lock_);
  return requests_;
}

void* Arenas::take_of_pools_locked(std::size_t bytes) noexcept {
  for (unsigned i = entered_count_; i-- != 0;) {
    if (void* const arena = entered_[i]->take_object_arena(bytes, Pool::ArenaFrom::kept)) return arena;
  }
  if (void* const arena = take_kept_of_source_locked(bytes)) return arena;
  Pool& last = *entered_[entered_count_ - 1];
  const Pool::ArenaFrom from = unwatched_ != 0 ? Pool::ArenaFrom::any_resident : Pool::ArenaFrom::any;
  if (void* const arena = last.take_object_arena(bytes, from)) return arena;
  last.count_object_fallback();
  if (last.frozen()) ++frozen_misses_;
  return nullptr;
}

void* Arenas::take_kept_of_source_locked(std::size_t bytes) noexcept {
  for (KeptOfSource** at = &kept_; *at != nullptr; at = &(*at)->next) {
    if ((*at)->bytes != bytes) continue;
    KeptOfSource* const found = *at;
    *at = found->next;
    return found;
  }
  return nullptr;
}

void* Arenas::take(std::size_t bytes) noexcept {
  {
    const std::lock_guard guard(lock_);
    ++requests_;
    if (bytes > arena_bytes_) arena_bytes_ = bytes;
    if (entered_count_ != 0) {
      note_locked(1, bytes);
      if (void* const arena = take_of_pools_locked(bytes)) return arena;
    }
  }
  void* const arena = source_.take(source_.context, bytes);
  if (arena == nullptr) {
    const std::lock_guard guard(lock_);
    if (entered_count_ != 0) note_locked(-1, bytes);
  }
  return arena;
}

void Arenas::give(void* arena, std::size_t bytes) noexcept {
  if (arena == nullptr) return;
  if (Pool* const pool = Pool::find(arena)) {
    {
      const std::lock_guard guard(lock_);
      note_locked(-1, bytes);
    }
    return pool->give_object_arena(arena);
  }
  KeptOfSource* idle = nullptr;
  {
    const std::lock_guard guard(lock_);
    note_locked(-1, bytes);
    if (any_frozen_locked() && bytes >= sizeof(KeptOfSource)) {
      auto* const kept = static_cast<KeptOfSource*>(arena);
      *kept = {kept_, bytes};
      kept_ = kept;
      return;
    }
    idle = detach_kept_locked();
  }
  source_.give(source_.context, arena, bytes);
  give_to_source(idle);
}

bool Arenas::contains(const void* address) noexcept {
  const Pool* const pool = Pool::find(address);
  return pool != nullptr && pool->in_object_arena(address);
}

bool Arenas::any_frozen_locked() const noexcept {
  for (unsigned i = 0; i < entered_count_; ++i) {
    if (entered_[i]->frozen()) return true;
  }
  return false;
}

Arenas::KeptOfSource* Arenas::detach_kept_locked() noexcept {
  if (any_frozen_locked()) return nullptr;
  KeptOfSource* const idle = kept_;
  kept_ = nullptr;
  return idle;
}

void Arenas::give_to_source(KeptOfSource* arenas) noexcept {
  while (arenas != nullptr) {
    KeptOfSource* const next = arenas->next;
    source_.give(source_.context, arenas, arenas->bytes);
    arenas = next;
  }
}

std::size_t Arenas::arena_bytes() noexcept {
  const std::lock_guard guard(lock_);
  return arena_bytes_;
}

std::uint64_t Arenas::frozen_misses() noexcept {
  const std::lock_guard guard(lock_);
  return frozen_misses_;
}

void Arenas::note_locked(std::int64_t change, std::size_t bytes) noexcept {
  for (Watch& watch : watches_) {
    Need& need = watch.need;
    if (!watch.used || bytes < need.bytes) continue;
    if (bytes > need.bytes) need = {0, 0, bytes};
    need.alive += change;
    const bool more = need.alive > static_cast<std::int64_t>(need.most);
    if (more && unwatched_ == 0) need.most = static_cast<std::uint64_t>(need.alive);
  }
}

Arenas::Unwatched::Unwatched(Arenas& arenas) noexcept : arenas_(arenas) {
  const std::lock_guard guard(arenas_.lock_);
  ++arenas_.unwatched_;
}

Arenas::Unwatched::~Unwatched() {
  const std::lock_guard guard(arenas_.lock_);
  --arenas_.unwatched_;
}

int Arenas::begin_watch() noexcept {
  const std::lock_guard guard(lock_);
  for (unsigned i = 0; i < k_most_watches; ++i) {
    if (watches_[i].used) continue;
    watches_[i] = {};
    watches_[i].used = true;
    return static_cast<int>(i);
  }
  return -1;
}

Need Arenas::take_need_locked(int watch, bool end) noexcept {
  if (watch < 0 || watch >= static_cast<int>(k_most_watches) || !watches_[watch].used) return {};
  watches_[watch].used = !end;
  return watches_[watch].need;
}

Need Arenas::look_at_watch(int watch) noexcept {
  const std::lock_guard guard(lock_);
  return take_need_locked(watch, false);
}

Need Arenas::end_watch(int watch) noexcept {
  const std::lock_guard guard(lock_);
  return take_need_locked(watch, true);
}

}  // namespace rtpool::objects
