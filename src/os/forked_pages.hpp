// Memory that a fork has made common to parent and child, page by page until one of the two writes: its first write faults, and
// copies the page if the other one still has it. That is so for all of a process's own memory, objects that the interpreter counts
// references in included; a loop with deadlines wants it settled before.
#pragma once

#include <cstddef>

namespace rtpool::os {

struct ForkedPages {
  std::size_t bytes = 0;   // that are this process's own to write now; they may have been before
  std::size_t copied = 0;  // of these, what the kernel told to be in other processes as well, or to be a page of zeros
  std::size_t left = 0;    // found to be resident and left as it is, as too much
  int error = 0;           // the first errno value met: EINVAL where the kernel cannot do it (before 5.14)
};

// Makes what is resident of this process's nameless memory its own to write: heaps, objects, stacks, pools. Contents stay what
// they are, and what is not resident stays away. Small mappings come first, up to 1 GiB in all, of which at most 256 MiB are
// copied, and no more than 4 GiB of address space are gone through: a large table that workers were forked to share stays shared.
// What a fork shares of loaded libraries is `make_program_resident`'s.
//
// Does something at the first call, as nobody knows what was forked before, and after each fork (by libc's function, whose
// handlers tell; vfork and posix_spawn share nothing). Any thread; others may go on. Cost, by processor time on a virtual machine: a
// page takes 0.2 us where nothing was shared (60 MiB: 4 ms, once a process), 1 us where the other process is gone, and 3 us where
// it is copied, which is what its fault would have taken in the loop.
ForkedPages take_forked_pages_back() noexcept;

// How often this process has forked, or been forked, since the first call of either function. Starts at 1.
unsigned forks() noexcept;

}  // namespace rtpool::os
