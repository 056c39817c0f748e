// Stacks of threads: the calling one's, and those that libc has at hand for the next to begin.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

// The lowest address it may reach and its end; false if libc does not say. Some kernel calls for the main thread.
bool own_stack(std::uintptr_t* lowest, std::uintptr_t* end) noexcept;

// Makes `bytes` of it below the caller's frame resident, so that calls which go deeper than any before do not fault: a thread
// begins with some pages, and a library may take megabytes of it in one call. Three quarters of what is left at most.
// Returns the bytes. The kernel is entered by a page fault for each page that is not there yet.
std::size_t touch_stack(std::size_t bytes) noexcept;

// Has so many threads begin and end, all alive at once: glibc keeps stacks (40 MiB of them) and heaps of threads that have ended, and
// the next ones to begin get these, resident as far as a thread needs to begin, instead of mapping new ones. `stack_bytes`: of each,
// 0 for libc's default. They run at the caller's settings and take no signal. Returns how many there were. Some 50 us each.
std::size_t rehearse_threads(std::size_t threads, std::size_t stack_bytes) noexcept;

}  // namespace rtpool::os
