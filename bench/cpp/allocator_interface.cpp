// The same pool, called as other extensions call it: by the functions of rtpool/rtpool.h, through the table.
#include "allocator.hpp"
#include "interface/functions.hpp"
#include "own_pool.hpp"

namespace rtpool::bench {
namespace {

rtpool_pool* g_pool = nullptr;
rtpool_api g_table{};

void* allocate(std::size_t size) { return rtpool_allocate(g_pool, size); }
void release(void* block) { rtpool_release(g_pool, block, 0); }
std::uint64_t capacity() {
  rtpool_stats stats;
  rtpool_get_stats(g_pool, &stats);
  return stats.capacity_bytes;
}
std::size_t usable_size(void* block) { return rtpool_usable_size(g_pool, block); }

}  // namespace

const Allocator& allocator() {
  if (g_pool == nullptr) {
    g_table.abi = RTPOOL_ABI;
    g_table.size = sizeof g_table;
    interface::fill_pool_functions(&g_table);
    g_pool = interface::handle_of(make_own_pool());
    if (rtpool_use(&g_table) != 0) std::abort();
  }
  static const Allocator instance{"interface", allocate, release, capacity, usable_size};
  return instance;
}

}  // namespace rtpool::bench
