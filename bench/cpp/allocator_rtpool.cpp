// A pool with the options of the default pool: grows on demand, prefaults, transparent huge pages.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "allocator.hpp"
#include "pool/pool.hpp"

namespace rtpool::bench {
namespace {

pool::Pool* g_pool = nullptr;

void* allocate(std::size_t size) { return g_pool->allocate(size); }
void release(void* block) { g_pool->release(block); }
std::uint64_t capacity() { return g_pool->stats().capacity_bytes; }
std::size_t usable_size(void* block) { return g_pool->usable_size(block); }

pool::Pool* make_pool() {
  const pool::Options options;
  const pool::CreateResult made = pool::Pool::create(options);
  if (made.pool == nullptr) {
    std::fprintf(stderr, "core_bench: cannot create the pool: %s\n", std::strerror(made.error));
    std::exit(1);
  }
  return made.pool;
}

}  // namespace

const Allocator& allocator() {
  if (g_pool == nullptr) {
    g_pool = make_pool();
  }
  static const Allocator instance{"rtpool", allocate, release, capacity, usable_size};
  return instance;
}

}  // namespace rtpool::bench
