// Object arenas as a pool serves them: within its limit, frozen or not, and keeping it alive.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/watch.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "pool/touch.hpp"

namespace rtpool::pool {

void* Pool::take_object_arena(std::size_t bytes, ArenaFrom from) noexcept {
  PoolImpl& self = impl(*this);
  void* arena = self.object_arenas_.take_kept(bytes);
  if (arena == nullptr && from != ArenaFrom::kept) {
    using Growing = ObjectArenas::Growing;
    // What is learned from is soon to run without a fault.
    const bool resident = from == ArenaFrom::any_resident || self.is_learning_.load(std::memory_order_relaxed);
    const Growing growing = frozen() ? Growing::no : resident ? Growing::resident : Growing::untouched;
    const std::size_t most = self.store_.options().limit / k_object_part;
    if (bytes <= most && self.object_arenas_.held() <= most - bytes) arena = self.object_arenas_.take_new(bytes, growing);
  }
  if (arena == nullptr) return nullptr;
  self.references_.fetch_add(k_arena_reference, std::memory_order_relaxed);
  // Blocks that lay here may have been closed.
  if (self.debug_ != nullptr) base::watch_open(arena, bytes);
  return arena;
}

void Pool::give_object_arena(void* arena) noexcept {
  if (arena == nullptr) return;
  PoolImpl& self = impl(*this);
  if (!self.object_arenas_.give(arena, self.options_.zero_on_free)) {
    return self.misuse(arena, contains(arena) ? PoolImpl::Place::not_live : PoolImpl::Place::foreign, "free of an object arena");
  }
  self.notice();
  if (self.references_.fetch_sub(k_arena_reference, std::memory_order_acq_rel) == k_arena_reference) self.drop_last_reference();
}

bool Pool::in_object_arena(const void* address) const noexcept { return impl(*this).object_arenas_.contains(address); }

std::size_t Pool::prepare_object_arenas(std::size_t bytes, std::size_t count) noexcept {
  PoolImpl& self = impl(*this);
  // All of them at once, then back: they are kept as a loop that needed them would leave them.
  auto** const held = static_cast<void**>(count <= SIZE_MAX / sizeof(void*) ? std::malloc(count * sizeof(void*)) : nullptr);
  if (held == nullptr) return 0;
  std::size_t used = 0;
  for (; used < count; ++used) {
    held[used] = take_object_arena(bytes, ArenaFrom::any_resident);
    if (held[used] == nullptr) break;
    touch(held[used], bytes);
    self.object_arenas_.note_touched(held[used]);
  }
  for (std::size_t i = used; i != 0;) give_object_arena(held[--i]);
  std::free(held);
  return used;
}

std::size_t Pool::free_object_arenas(os::Nanoseconds older_than, std::size_t most) noexcept {
  return frozen() ? 0 : impl(*this).give_kept_arenas_back(older_than, most);
}

std::size_t PoolImpl::give_kept_arenas_back(os::Nanoseconds older_than, std::size_t most) noexcept {
  const os::Gate::Inside inside(gate_);
  return object_arenas_.give_kept_back(older_than, most);
}

void Pool::count_object_fallback() noexcept { impl(*this).object_arenas_.count_refusal(); }

}  // namespace rtpool::pool
