// The last request of each thread that a pool could not serve, for the texts of errors: callers of an allocator only see that
// it answered nullptr, and say so in words that know nothing of pools.
//
// Thread rule: everything here is the calling thread's own. Cost: a store of two words, on the way to failure only. No
// kernel, no failure.
#pragma once

#include <cstddef>

namespace rtpool::pool {

struct Refusal {
  const void* pool = nullptr;  // to be compared, not followed: it may be gone
  std::size_t size = 0;        // bytes that were asked for
  int error = 0;               // of the kernel, where the pool might have grown; 0: what is in use leaves no room for it
  bool passed_on = false;      // the fallback was asked as well, and had no memory
};

void note_refusal(const Refusal& refusal) noexcept;
// The last one, once: nothing is left for the next call.
Refusal take_refusal() noexcept;

}  // namespace rtpool::pool
