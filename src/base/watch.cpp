#include "base/watch.hpp"

#include "base/sanitizers.hpp"

#ifdef RTPOOL_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#elif __has_include(<valgrind/memcheck.h>)
#define RTPOOL_VALGRIND 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <valgrind/memcheck.h>
#pragma GCC diagnostic pop
#endif

namespace rtpool::base {

bool watched() noexcept {
#if defined(RTPOOL_ADDRESS_SANITIZER)
  return true;
#elif defined(RTPOOL_VALGRIND)
  static const bool inside = RUNNING_ON_VALGRIND != 0;
  return inside;
#else
  return false;
#endif
}

bool knows_valgrind() noexcept {
#ifdef RTPOOL_VALGRIND
  return true;
#else
  return false;
#endif
}

void watch_close([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(RTPOOL_ADDRESS_SANITIZER)
  ASAN_POISON_MEMORY_REGION(memory, bytes);
#elif defined(RTPOOL_VALGRIND)
  (void)VALGRIND_MAKE_MEM_NOACCESS(memory, bytes);
#endif
}

void watch_open([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(RTPOOL_ADDRESS_SANITIZER)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#elif defined(RTPOOL_VALGRIND)
  (void)VALGRIND_MAKE_MEM_DEFINED(memory, bytes);
#endif
}

void watch_allocated(const void* block, std::size_t bytes, [[maybe_unused]] bool initialised) noexcept {
#ifdef RTPOOL_VALGRIND
  VALGRIND_MALLOCLIKE_BLOCK(block, bytes, 0, initialised);
#else
  watch_open(block, bytes);
#endif
}

void watch_freed(const void* block, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef RTPOOL_VALGRIND
  VALGRIND_FREELIKE_BLOCK(block, 0);
#else
  watch_close(block, bytes);
#endif
}

}  // namespace rtpool::base
