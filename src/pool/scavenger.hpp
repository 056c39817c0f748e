// Giving idle memory back by itself: one thread for all pools of the process that were made with `idle`.
//
// A pool is *watched* or at rest. While it is watched, the thread looks at it four times in the pool's idle time: it begins an
// epoch, and what has not been used for the idle time goes back to the kernel, in whole frames. When nothing has been used
// between two looks and nothing is left to give, the pool goes to rest: a bit in the heaps' `attention` sends the next hit to its
// slow path, which says so (`PoolImpl::notice`), and the thread sleeps for as long as all pools rest. Without such a bit a
// program that only frees what it has long held would not be noticed.
//
//   SC-1  a pool that rests has the bit set in all of its heaps, or no memory that could be given back
//
// Where memory is short (os/memory_pressure.hpp) it hurries: looks are at most 2.5 s apart, and one without use is enough. It asks
// at each look, so that looks are never far apart: 10 s where the kernel wakes it when tasks begin to wait for memory, else those
// 2.5 s. (The kernel tells of no limit that is merely near.) At rest there is nothing to give, so that nobody asks and no trigger
// is set.
//
// Nobody waits for it for long, by construction. A look takes a heap from its owner for k_steps_held steps at most, of some
// microseconds each (blocks::k_age_looks, k_age_gives), and gives it back after any step as soon as somebody waits; a heap whose
// owner is in it is left alone until later, so that the thread never waits with a lock in its hand. The store's lists are looked
// at for k_trim_looks runs a turn of the lock. No kernel call is made with any of these locks held, but the process barrier. What
// it does hold is what only a request waits for that would be refused else (`PageStore::giving_lock_`). Beyond its reach: the
// kernel's lock of the address space (a frame's pages are taken out under it), and libc's (`os::trim_libc_malloc`).
//
// A frozen pool is not looked at. The thread is made when a pool first has something to give. It ends before a fork, so that
// neither the child misses it nor the parent counts as multi-threaded for it; afterwards the next use of a pool makes it anew, or
// `scavenger_resume`. libc's heap, where it is tuned to keep its memory (os/libc_malloc.hpp), is trimmed by the same thread when
// the process has been quiet for the shortest idle time of the pools it used, 10 s at most: nobody can see what of that heap is in use
// by a loop.
//
// Thread rule: any thread, none of the pools' locks held. Cost: `scavenger_wake` a kernel call, or the making of a thread.
#pragma once

namespace rtpool::os {
class MemoryPressure;
}

namespace rtpool::pool {

// A pool is watched from now on.
void scavenger_wake() noexcept;
// All pools that have something to give are watched from now on: after a fork, in a process that may not use them again.
void scavenger_resume() noexcept;
// The thread ends, and nobody makes another one until the fork is over.
void scavenger_before_fork() noexcept;
void scavenger_after_fork(bool child) noexcept;
// Somebody waits for the thread to end: a look is to be cut short.
bool scavenger_called_off() noexcept;
// A pool was frozen: no trim of libc's heap goes on or begins once this returns. Or thawed: what had to wait for that goes on.
void scavenger_frozen() noexcept;
void scavenger_thawed() noexcept;
// libc's heap is to be trimmed when the process is quiet, from now on; and whether it is.
void scavenger_trim_libc() noexcept;
bool scavenger_trims_libc() noexcept;
// For tests: in place of the kernel's, nullptr for that again. Between scavenger_before_fork and scavenger_after_fork.
void scavenger_listen_to(os::MemoryPressure* pressure) noexcept;

}  // namespace rtpool::pool
