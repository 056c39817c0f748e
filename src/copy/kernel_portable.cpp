// Any architecture: the library's memcpy, which knows its machine. No stores past the cache.
#include <cstring>

#include "copy/kernel_set.hpp"

namespace rtpool::copy {
namespace {

bool supported() noexcept { return true; }

void copy_rows(const Rows& rows) noexcept {
  std::byte* dst = rows.dst;
  const std::byte* src = rows.src;
  for (std::size_t i = 0; i < rows.count; ++i, dst += rows.dst_step, src += rows.src_step) {
    std::memcpy(dst, src, rows.bytes);
  }
}

void fence() noexcept {}

}  // namespace

const Kernel k_portable_kernel = {"portable", false, supported, copy_rows, copy_rows, fence};

}  // namespace rtpool::copy
