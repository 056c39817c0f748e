// The process's own malloc: glibc's, or whatever LD_PRELOAD puts in its place.
#include <malloc.h>

#include <cstdlib>

#include "allocator.hpp"

namespace rtpool::bench {
namespace {

std::uint64_t no_capacity() { return 0; }

}  // namespace

const Allocator& allocator() {
  static const Allocator instance{"malloc", std::malloc, std::free, no_capacity, malloc_usable_size};
  return instance;
}

}  // namespace rtpool::bench
