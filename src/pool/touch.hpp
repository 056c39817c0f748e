// Touching memory that a loop is about to use.
#pragma once

#include <cstddef>

#include "os/memory.hpp"

namespace rtpool::pool {

// Resident is not enough: where a hypervisor keeps page tables of its own, the first access to each page from user mode
// costs an exit to it, some microseconds. What is written is what was there, so memory known to be zero stays so. All
// lines are read, so that what fits the caches is in them. The caller owns the memory.
inline void touch(void* block, std::size_t size) noexcept {
  constexpr std::size_t k_cache_line = 64;
  auto* const bytes = static_cast<volatile char*>(block);
  for (std::size_t at = 0; at < size; at += k_cache_line) (void)bytes[at];
  for (std::size_t at = 0; at < size; at += os::k_page_size) bytes[at] = bytes[at];
}

}  // namespace rtpool::pool
