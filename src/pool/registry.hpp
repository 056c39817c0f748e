// All pools of the process: who holds an address, thread ends, fork.
//
// Thread rule: any thread. Cost: `registry_find` O(pools), no lock; the others take the registry's lock. Fork: handlers are
// installed with the first pool; they stop every heap of every pool, so that the child gets a consistent copy in which the
// heaps of the threads that it does not have are free to be adopted.
#pragma once

#include <cstdint>

#include "blocks/heap.hpp"

namespace rtpool::pool {

class Pool;
struct PoolImpl;

inline constexpr std::uint32_t k_no_slot = 0xFFFFFFFFU;

// A number that no other pool of this process has had, shared pools included.
std::uint64_t new_pool_id() noexcept;
// What the first pool, and whoever records without one, sees to: handlers around fork.
void install_fork_handlers() noexcept;

// Enters a pool; k_no_slot when there are 65,536 already.
std::uint32_t registry_enter(PoolImpl& pool) noexcept;
// Takes it out and calls `then` before any other change to the registry can happen.
void registry_leave(PoolImpl& pool, void (*then)(PoolImpl&) noexcept) noexcept;
// `id` here and below: the pool's heap key, its id for all but debug pools.
bool registry_has(std::uint32_t slot, std::uint64_t id) noexcept;
// Every pool there is; none is made or goes meanwhile.
void registry_each(void (*function)(PoolImpl&, void*) noexcept, void* argument) noexcept;
PoolImpl* registry_find(const void* address) noexcept;
// Calls `visit` for each pool until it answers true, which is then the result. No pool comes or goes meanwhile.
bool registry_visit(bool (*visit)(PoolImpl& pool, void* context) noexcept, void* context) noexcept;
// The first pool from `*slot` on that somebody holds a reference of, with one more: the caller's to drop. nullptr: none.
PoolImpl* registry_next(std::uint32_t* slot) noexcept;
// A thread ended: its heap goes to the pool's orphans, if the pool is still there.
void registry_abandon(std::uint32_t slot, std::uint64_t id, blocks::Heap& heap) noexcept;

// In a forked child: no pool is recorded from here on (recording.cpp).
void forget_recordings() noexcept;

}  // namespace rtpool::pool
