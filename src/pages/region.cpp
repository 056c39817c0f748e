#include "pages/region.hpp"

#include <cerrno>

#include "base/bits.hpp"

namespace rtpool::pages {

int Region::reserve(os::Memory& memory, std::size_t bytes) noexcept {
  void* address = nullptr;
  bytes = base::align_up(bytes, k_step);
  if (const int error = memory.reserve(bytes, os::k_page_size, &address); error != 0) return error;
  base_ = static_cast<char*>(address);
  reserved_ = bytes;
  return 0;
}

void Region::release(os::Memory& memory) noexcept {
  if (base_ != nullptr) memory.release(base_, reserved_);
  *this = Region{};
}

int Region::extend(os::Memory& memory, std::size_t bytes, bool lock, unsigned* kernel_calls) noexcept {
  if (bytes <= committed_) return 0;
  if (bytes > reserved_) return ENOMEM;
  // In steps of at least an eighth, so that the number of kernel calls is logarithmic in the size.
  std::size_t target = base::align_up(bytes, k_step);
  if (target < committed_ + committed_ / 8) target = base::align_up(committed_ + committed_ / 8, k_step);
  if (target > reserved_) target = reserved_;
  char* const start = base_ + committed_;
  const std::size_t step = target - committed_;
  *kernel_calls += 2;
  if (const int error = memory.commit(start, step); error != 0) return error;
  if (const int error = memory.prefault(start, step); error != 0) {
    memory.decommit(start, step);
    return error;
  }
  // Without the lock the region still works; the pool reports the arena's own failure to lock, which has the same cause.
  if (lock) {
    ++*kernel_calls;
    static_cast<void>(memory.lock(start, step));
  }
  committed_ = target;
  return 0;
}

}  // namespace rtpool::pages
