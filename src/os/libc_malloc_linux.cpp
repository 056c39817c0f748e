#include <malloc.h>

#include <cstdlib>
#include <initializer_list>

#include "os/libc_malloc.hpp"

namespace rtpool::os {

void touch_zeros(void* block, std::size_t bytes) noexcept {
  constexpr std::size_t k_page = 4096;
  auto* const at = static_cast<volatile char*>(block);
  for (std::size_t i = 0; i < bytes; i += k_page) at[i] = 0;
  if (bytes != 0) at[bytes - 1] = 0;
}

bool tune_libc_malloc() noexcept {
#if defined(__GLIBC__)
  constexpr int k_never = -1;
  constexpr int k_top_pad = 64 << 20;
  const bool keeps = ::mallopt(M_TRIM_THRESHOLD, k_never) == 1;
  const bool maps_none = ::mallopt(M_MMAP_MAX, 0) == 1;
  const bool grows_far = ::mallopt(M_TOP_PAD, k_top_pad) == 1;
  return keeps && maps_none && grows_far;
#else
  return false;
#endif
}

void trim_libc_malloc() noexcept {
#if defined(__GLIBC__)
  (void)::malloc_trim(0);
#endif
}

void touch_libc_heap(std::size_t bytes) noexcept {
  if (char* const piece = static_cast<char*>(std::malloc(bytes)); piece != nullptr) {
    touch_zeros(piece, bytes);
    std::free(piece);
  }
  // Holes as well, by blocks of sizes that loops ask for (an iterator's buffers of 8192 values), and by smaller ones what those
  // leave: all at once, so that none comes to lie where another one was.
  constexpr std::size_t k_most_in_blocks = 1 << 20;  // of each size
  void* blocks = nullptr;
  for (const std::size_t size : {64 << 10, 16 << 10, 4 << 10}) {
    for (std::size_t taken = 0; taken < bytes && taken < k_most_in_blocks; taken += size) {
      char* const block = static_cast<char*>(std::malloc(size));
      if (block == nullptr) break;
      touch_zeros(block, size);
      *reinterpret_cast<void**>(block) = blocks;
      blocks = block;
    }
  }
  while (blocks != nullptr) {
    void* const block = blocks;
    blocks = *static_cast<void**>(block);
    std::free(block);
  }
}

}  // namespace rtpool::os
