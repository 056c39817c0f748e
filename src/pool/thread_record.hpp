// Which heap this thread uses in which pool.
//
// Thread-local storage holds one small trivially destructible struct: the last pool used (one compare on the hit path) and
// a pointer to the thread's table of all its heaps. A pthread key's destructor hands the heaps to their pools when the
// thread ends; a block freed or allocated after that (by another destructor) only makes a new table, which the next round
// of destructors hands over again. Nothing depends on C++ thread-local destructors.
//
// Thread rule: everything here is the calling thread's own. Cost: `find_heap` O(1) expected, no lock, no kernel.
#pragma once

#include <cstdint>

#include "base/thread_local.hpp"
#include "blocks/heap.hpp"

namespace rtpool::pool {

struct PoolImpl;
struct ThreadRecord;

struct ThreadCache {
  std::uint64_t key = 0;  // heap key of the pool whose heap is `heap`: its id (from 1, never reused) unless it is a debug pool
  blocks::Heap* heap = nullptr;
  ThreadRecord* record = nullptr;
};

// 24 bytes of the static TLS reserve.
extern thread_local constinit ThreadCache t_cache RTPOOL_THREAD_LOCAL;

// This thread's heap in that pool or nullptr. Makes it the cached one.
blocks::Heap* find_heap(const PoolImpl& pool) noexcept;
// Remembers a heap. False: no memory for the table.
bool remember_heap(PoolImpl& pool, blocks::Heap* heap) noexcept;

}  // namespace rtpool::pool
