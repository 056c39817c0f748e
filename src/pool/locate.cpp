// Whose memory an address is in: for reports, and for who holds blocks of unknown origin.
#include <cstring>

#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"

namespace rtpool::pool {
namespace {

struct Search {
  const void* address;
  PoolPlace* out;
};

bool is_in(const PoolImpl& pool, const void* address, PoolPart* part) noexcept {
  using Part = pages::PageStore::Part;
  switch (pool.store_.part_at(address)) {
    case Part::foreign: break;
    case Part::not_ready: *part = PoolPart::not_ready; return true;
    case Part::free_pages: *part = PoolPart::free_pages; return true;
    case Part::run: *part = PoolPart::block; return true;
    case Part::slab: *part = PoolPart::small_blocks; return true;
    case Part::object_arena: *part = PoolPart::object_arena; return true;
    case Part::descriptors: *part = PoolPart::descriptors; return true;
    case Part::records: *part = PoolPart::records; return true;
  }
  *part = PoolPart::control;
  return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(&pool) < pool.made_bytes_;
}

}  // namespace

Pool* Pool::find_owner(const void* address) noexcept {
  if (PoolImpl* const pool = registry_find(address)) return pool->in_object_arena(address) ? nullptr : pool;
  if (FallbackTable::count_of_all() == 0) return nullptr;
  struct Wanted {
    const void* address;
    Pool* owner;
  } wanted{address, nullptr};
  registry_visit(
      [](PoolImpl& pool, void* context) noexcept {
        auto* const looked_for = static_cast<Wanted*>(context);
        if (!pool.is_fallback_block(looked_for->address)) return false;
        looked_for->owner = &pool;
        return true;
      },
      &wanted);
  return wanted.owner;
}

bool Pool::locate(const void* address, PoolPlace* out) noexcept {
  Search search{address, out};
  return registry_visit(
      [](PoolImpl& pool, void* context) noexcept {
        const auto* const wanted = static_cast<const Search*>(context);
        if (!is_in(pool, wanted->address, &wanted->out->part)) return false;
        std::memcpy(wanted->out->name, pool.options_.name, sizeof wanted->out->name);
        wanted->out->id = pool.id();
        return true;
      },
      &search);
}

}  // namespace rtpool::pool
