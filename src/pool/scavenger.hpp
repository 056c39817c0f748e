// Giving idle memory back by itself: one thread for all pools of the process that were made with `idle`.
//
// A pool is *watched* or at rest. While it is watched, the thread looks at it four times in the pool's idle time (at most each
// 2.5 s): it begins an epoch, and what has not been used for the idle time goes back to the kernel, in whole frames. A look stops
// one heap at a time for some microseconds (blocks::Heap::age) and gives back frame by frame with no lock held; a hit that
// comes in between waits that long, no other does. Where tasks wait for memory, one look without use is enough.
// When nothing has been used between two looks and nothing is left to give, the pool goes to rest: a bit in the heaps' `attention`
// sends the next hit to its slow path, which says so (`PoolImpl::notice`), and the thread sleeps for as long as all pools
// rest. Without such a bit a program that only frees what it has long held would not be noticed.
//
//   SC-1  a pool that rests has the bit set in all of its heaps, or no memory that could be given back
//
// A frozen pool is not looked at. The thread is made when a pool first has something to give, and again after a fork: it ends
// before one, so that neither the child misses it nor the parent counts as multi-threaded for it. libc's heap, where it is
// tuned to keep its memory (os/libc_malloc.hpp), is trimmed by the same thread when the process has been quiet for the idle
// time: nobody can see what of that heap is in use by a loop.
//
// Thread rule: any thread, none of the pools' locks held. Cost: `scavenger_wake` a kernel call, or the making of a thread.
#pragma once

namespace rtpool::pool {

// A pool is watched from now on.
void scavenger_wake() noexcept;
// The thread ends, and nobody makes another one until the fork is over.
void scavenger_before_fork() noexcept;
void scavenger_after_fork(bool child) noexcept;
// libc's heap is to be trimmed when the process is quiet.
void scavenger_trims_libc() noexcept;

}  // namespace rtpool::pool
