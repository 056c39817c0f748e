// The calling thread's stack.
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

}  // namespace rtpool::os
