// A pool, called as the binding calls it.
#include "allocator.hpp"
#include "own_pool.hpp"

namespace rtpool::bench {
namespace {

pool::Pool* g_pool = nullptr;

void* allocate(std::size_t size) { return g_pool->allocate(size); }
void release(void* block) { g_pool->release(block); }
std::uint64_t capacity() { return g_pool->stats().capacity_bytes; }
std::size_t usable_size(void* block) { return g_pool->usable_size(block); }

}  // namespace

const Allocator& allocator() {
  if (g_pool == nullptr) g_pool = make_own_pool();
  static const Allocator instance{"rtpool", allocate, release, capacity, usable_size};
  return instance;
}

}  // namespace rtpool::bench
