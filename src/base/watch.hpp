// What AddressSanitizer and Valgrind are told about memory that a pool hands out.
//
// Both know nothing of a pool by themselves: to them its arena is one large mapping in which everything may be touched at
// any time. A pool that is being watched tells them which bytes belong to somebody, so that a use after free or an overrun
// by code that is built with the sanitizer, or runs inside Valgrind, is found at the instruction that does it.
//
// Thread rule: any thread, about memory that the caller owns. Cost: some instructions
// where nobody watches; callers ask `watched` once.
#pragma once

#include <cstddef>

namespace rtpool::base {

// Whether this process is watched: the core was built with -fsanitize=address, or runs inside Valgrind (and was built where
// valgrind/memcheck.h could be had).
bool watched() noexcept;
// Whether this build can tell that it runs inside Valgrind.
bool knows_valgrind() noexcept;

// Nobody may touch these bytes / anybody may, and they count as initialised.
void watch_close(const void* memory, std::size_t bytes) noexcept;
void watch_open(const void* memory, std::size_t bytes) noexcept;
// `block` was handed out / was freed: Valgrind remembers both call stacks, and counts what is never freed as a leak.
void watch_allocated(const void* block, std::size_t bytes, bool initialised) noexcept;
void watch_freed(const void* block, std::size_t bytes) noexcept;

}  // namespace rtpool::base
