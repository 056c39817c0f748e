#include "support.hpp"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<std::uint64_t> g_reports{0};

void write_counts() noexcept {
  const char* const path = std::getenv("RTPOOL_FUZZ_COUNTS");
  if (path == nullptr) return;
  if (std::FILE* const file = std::fopen(path, "a")) {
    const rtpool::fuzz::Counts& counts = rtpool::fuzz::counts();
    std::fprintf(file, "inputs=%llu operations=%llu faults=%llu misuses=%llu\n",
                 static_cast<unsigned long long>(counts.inputs), static_cast<unsigned long long>(counts.operations),
                 static_cast<unsigned long long>(counts.faults), static_cast<unsigned long long>(counts.misuses));
    std::fclose(file);
  }
}

// Calls `function(from, to)` for each stretch of a block that carries a pattern.
template <class Function>
void for_each_stretch(std::size_t size, Function&& function) noexcept {
  constexpr std::size_t k_whole = 2048;
  constexpr std::size_t k_stride = 512;
  constexpr std::size_t k_stretch = 16;
  if (size <= k_whole) return function(std::size_t{0}, size);
  for (std::size_t at = 0; at + k_stretch < size; at += k_stride) function(at, at + k_stretch);
  function(size - k_stretch, size);
}

}  // namespace

// The linker sends the core's calls of write(2) here (--wrap=write): reports about wrong pointers are expected by the
// thousand, everything else is printed.
extern "C" ssize_t __real_write(int fd, const void* data, size_t bytes);
extern "C" ssize_t __wrap_write(int fd, const void* data, size_t bytes) {
  constexpr char k_prefix[] = "rtpool: pool ";
  constexpr char k_shared_prefix[] = "rtpool: shared pool";
  if (fd == STDERR_FILENO && ((bytes > sizeof k_prefix && std::memcmp(data, k_prefix, sizeof k_prefix - 1) == 0) ||
                              (bytes > sizeof k_shared_prefix && std::memcmp(data, k_shared_prefix, sizeof k_shared_prefix - 1) == 0))) {
    g_reports.fetch_add(1, std::memory_order_relaxed);
    return static_cast<ssize_t>(bytes);
  }
  return __real_write(fd, data, bytes);
}

namespace rtpool::fuzz {

Counts& counts() noexcept {
  static Counts counts;
  static const int registered = std::atexit(write_counts);
  static_cast<void>(registered);
  return counts;
}

std::uint64_t reports() noexcept { return g_reports.load(std::memory_order_relaxed); }

void broken(const char* file, int line, const char* promise, const char* more) noexcept {
  std::fprintf(stderr, "%s:%d: broken: %s %s\n", file, line, promise, more);
  std::abort();
}

void fill(void* block, std::size_t size, std::uint8_t seed) noexcept {
  auto* const bytes = static_cast<unsigned char*>(block);
  for_each_stretch(size, [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) bytes[i] = static_cast<unsigned char>(seed + i * 7);
  });
}

bool filled(const void* block, std::size_t size, std::uint8_t seed) noexcept {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  bool same = true;
  for_each_stretch(size, [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) same = same && bytes[i] == static_cast<unsigned char>(seed + i * 7);
  });
  return same;
}

bool all_zero(const void* block, std::size_t size) noexcept {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  return size == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size - 1) == 0);
}

}  // namespace rtpool::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ++rtpool::fuzz::counts().inputs;
  rtpool::fuzz::play(rtpool::fuzz::Input(data, size));
  return 0;
}
