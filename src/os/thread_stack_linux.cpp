#include <pthread.h>

#include <algorithm>

#include "os/kernel_pages.hpp"
#include "os/thread_stack.hpp"

namespace rtpool::os {
namespace {

// Not inlined: its frame is to lie below the caller's, and to be gone afterwards.
__attribute__((noinline)) void touch_below(std::size_t bytes) noexcept {
  auto* const room = static_cast<volatile char*>(__builtin_alloca(bytes));
  // From the top down, as the kernel lets the main thread's stack grow.
  const std::size_t page = page_size();
  for (std::size_t at = bytes; at > page; at -= page) room[at - 1] = 0;
  room[0] = 0;
}

}  // namespace

bool own_stack(std::uintptr_t* lowest, std::uintptr_t* end) noexcept {
  pthread_attr_t attributes;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return false;
  void* begin = nullptr;
  std::size_t bytes = 0;
  const bool known = ::pthread_attr_getstack(&attributes, &begin, &bytes) == 0;
  ::pthread_attr_destroy(&attributes);
  *lowest = reinterpret_cast<std::uintptr_t>(begin);
  *end = *lowest + bytes;
  return known;
}

std::size_t touch_stack(std::size_t bytes) noexcept {
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (!own_stack(&lowest, &end) || here - lowest >= end - lowest) return 0;
  const std::size_t touched = std::min(bytes, (here - lowest) / 4 * 3);
  if (touched >= page_size()) touch_below(touched);
  return touched;
}

}  // namespace rtpool::os
