// The allocator under measurement, seen by every workload through the same two function pointers.
//
// Two executables link the same workloads: `core_bench_malloc` with the process's malloc and free (glibc's, or those of
// a library put in front by LD_PRELOAD) and `core_bench_rtpool` with a pool. Nothing else differs between them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::bench {

struct Allocator {
  const char* name;
  void* (*allocate)(std::size_t size);
  void (*release)(void* block);
  // Bytes the allocator holds from the kernel, or 0 where it does not say (the workloads then report resident bytes
  // alone).
  std::uint64_t (*capacity)();
  // Bytes granted for a live block, at least what was asked for.
  std::size_t (*usable_size)(void* block);
};

// The one of this executable. Made at the first call; ends the process with a line of text when it cannot be made.
const Allocator& allocator();

}  // namespace rtpool::bench
