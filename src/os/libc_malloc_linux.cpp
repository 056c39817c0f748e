#include <malloc.h>

#include "os/libc_malloc.hpp"

namespace rtpool::os {

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

}  // namespace rtpool::os
