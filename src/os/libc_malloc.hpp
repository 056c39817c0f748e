// Settings of libc's own malloc, for the memory that bypasses every handler: scratch of sorts and iterators, LAPACK's work
// arrays, other libraries' tables.
#pragma once

#include <cstddef>

namespace rtpool::os {

// Makes libc keep what it has once taken from the kernel, so that blocks asked for again cost no page faults:
//   M_TRIM_THRESHOLD  off      heaps are never trimmed;
//   M_MMAP_MAX        0        blocks of every size come from the heaps, none by an mmap of its own;
//   M_TOP_PAD         64 MiB   heaps grow in large steps (address space; pages still appear at first touch), and the
//                              heaps of threads are kept when they run empty.
// Measured with blocks of 100 KiB to 200 MiB, touched and freed in a loop: no faults in the main thread at any size
// (before: one a page from 32 MiB on), and none in other threads up to 40 MiB. Above 64 MiB, the most a thread's heap can
// hold, libc still maps each block of such a thread by itself; M_ARENA_MAX = 1 would end that and make all threads wait
// for one lock, so it is left alone.
// The price: freed memory stays resident, and realloc of a large block copies where mremap would have moved it.
//
// Lasts until the process ends: libc does not tell what the settings were. Calling it again changes nothing.
// Returns false where libc has no such settings or refused one. Any thread. Never enters the kernel.
bool tune_libc_malloc() noexcept;

// Gives what is free in libc's heaps back to the kernel, in whole pages, the tuned settings notwithstanding. Holds libc's locks
// while it works, some ms for hundreds of MiB. Any thread.
void trim_libc_malloc() noexcept;

// Makes a block that libc gave as zeros resident, by a zero in each page. Any thread. Enters the kernel: a page fault for each page that
// is not there yet.
void touch_zeros(void* block, std::size_t bytes) noexcept;

// Makes `bytes` of the calling thread's heap resident, for what a loop asks libc for in its first iteration: takes
// them, in one piece and then in small ones (1 MiB at most of each of three sizes), writes a byte a page and gives them
// back. They stay where tune_libc_malloc() is in force. Without this the scratch of NumPy's iterators, say, is new
// memory wherever little else came from libc, as in a Python without a GIL, whose objects of all sizes come from
// elsewhere; and so is what a loop takes each time, once something has come to lie where it lay. Does what it can where
// memory runs out. Any thread. Enters the kernel: a page fault for each page that is not there yet.
void touch_libc_heap(std::size_t bytes) noexcept;

}  // namespace rtpool::os
