#include "pool/thread_record.hpp"

#include <pthread.h>

#include <cstdlib>

#include "base/bits.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"

namespace rtpool::pool {

thread_local constinit ThreadCache t_cache;

// Open addressing, a power of two of places, at most half full. Entries of pools that are gone are dropped when it grows.
struct ThreadRecord {
  struct Entry {
    std::uint64_t id;
    std::uint32_t slot;  // in the registry
    blocks::Heap* heap;
  };
  std::size_t places = 0;
  std::size_t used = 0;
  Entry* entries = nullptr;
};

namespace {

void insert(ThreadRecord& record, const ThreadRecord::Entry& entry) noexcept {
  std::size_t at = base::hash_place(entry.id, record.places);
  while (record.entries[at].id != 0) at = (at + 1) & (record.places - 1);
  record.entries[at] = entry;
  ++record.used;
}

bool make_room(ThreadRecord& record) noexcept {
  if ((record.used + 1) * 2 <= record.places) return true;
  std::size_t alive = 0;
  for (std::size_t i = 0; i < record.places; ++i) {
    if (record.entries[i].id != 0 && registry_has(record.entries[i].slot, record.entries[i].id)) ++alive;
  }
  ThreadRecord next;
  next.places = 8;
  while ((alive + 1) * 2 > next.places) next.places *= 2;
  next.entries = static_cast<ThreadRecord::Entry*>(std::calloc(next.places, sizeof(ThreadRecord::Entry)));
  if (next.entries == nullptr) return false;
  for (std::size_t i = 0; i < record.places; ++i) {
    const ThreadRecord::Entry& entry = record.entries[i];
    if (entry.id != 0 && registry_has(entry.slot, entry.id)) insert(next, entry);
  }
  std::free(record.entries);
  record = next;
  return true;
}

void thread_ends(void* value) noexcept {
  auto* const record = static_cast<ThreadRecord*>(value);
  t_cache = ThreadCache{};
  for (std::size_t i = 0; i < record->places; ++i) {
    const ThreadRecord::Entry& entry = record->entries[i];
    if (entry.id != 0) registry_abandon(entry.slot, entry.id, *entry.heap);
  }
  std::free(record->entries);
  std::free(record);
}

pthread_key_t thread_key() noexcept {
  static const pthread_key_t key = [] {
    pthread_key_t made;
    ::pthread_key_create(&made, [](void* value) { thread_ends(value); });
    return made;
  }();
  return key;
}

}  // namespace

blocks::Heap* find_heap(const PoolImpl& pool) noexcept {
  if (t_cache.key == pool.heap_key_) return t_cache.heap;
  const ThreadRecord* const record = t_cache.record;
  if (record == nullptr || record->places == 0) return nullptr;
  for (std::size_t at = base::hash_place(pool.heap_key_, record->places);; at = (at + 1) & (record->places - 1)) {
    const ThreadRecord::Entry& entry = record->entries[at];
    if (entry.id == 0) return nullptr;
    if (entry.id != pool.heap_key_) continue;
    t_cache.key = entry.id;
    t_cache.heap = entry.heap;
    return entry.heap;
  }
}

bool remember_heap(PoolImpl& pool, blocks::Heap* heap) noexcept {
  if (t_cache.record == nullptr) {
    auto* const record = static_cast<ThreadRecord*>(std::calloc(1, sizeof(ThreadRecord)));
    if (record == nullptr) return false;
    if (::pthread_setspecific(thread_key(), record) != 0) {
      std::free(record);
      return false;
    }
    t_cache.record = record;
  }
  if (!make_room(*t_cache.record)) return false;
  insert(*t_cache.record, {pool.heap_key_, pool.slot_, heap});
  t_cache.key = pool.heap_key_;
  t_cache.heap = heap;
  return true;
}

}  // namespace rtpool::pool
