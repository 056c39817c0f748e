// Linux: cpuid, and xgetbv for whether the kernel saves the wide registers; sysfs for the caches, sched_getaffinity and cgroups for
// the cores.
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/bits.hpp"
#include "os/cpu.hpp"
#include "os/text_file.hpp"

namespace rtpool::os {
namespace {

CpuFeatures detect_features() noexcept {
  CpuFeatures found;
#if defined(__x86_64__) || defined(__i386__)
  // Not the compiler's __builtin_cpu_supports: the run-time library of some (zig) answers no to everything.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return found;
  found.sse2 = (d & bit_SSE2) != 0;
  if ((c & bit_OSXSAVE) == 0 || (c & bit_AVX) == 0) return found;
  unsigned saved = 0, above = 0;  // registers that the kernel saves
  asm volatile("xgetbv" : "=a"(saved), "=d"(above) : "c"(0));
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
  constexpr unsigned k_ymm = 0x06, k_zmm = 0xE6;
  found.avx2 = (b & bit_AVX2) != 0 && (saved & k_ymm) == k_ymm;
  found.avx512f = (b & bit_AVX512F) != 0 && (saved & k_zmm) == k_zmm;
#endif
  return found;
}

// "32K", "1024K", "32M" as sysfs writes cache sizes; 0 for anything else.
std::size_t parse_size(const char* text) noexcept {
  char* end = nullptr;
  const std::size_t value = std::strtoull(text, &end, 10);
  if (end == text) return 0;
  if (*end == 'K') return value << 10;
  if (*end == 'M') return value << 20;
  return value;
}

CacheSizes detect_cache_sizes() noexcept {
  CacheSizes found;
  if (read_caches_of_cores("/sys/devices/system/cpu", &found)) return found;
#ifdef _SC_LEVEL1_DCACHE_SIZE  // glibc; musl does not know
  const long level1 = ::sysconf(_SC_LEVEL1_DCACHE_SIZE);
  const long level2 = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  const long level3 = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (level1 <= 0 || level2 <= 0) return found;
  found.level1 = static_cast<std::size_t>(level1);
  found.level2 = static_cast<std::size_t>(level2);
  found.level3 = level3 > 0 ? static_cast<std::size_t>(level3) : 0;
#endif
  return found;
}

// The tightest CPU quota between this process's own cgroup (v2) and the root; 0 for none.
unsigned read_quota() noexcept {
  char text[1024];
  char path[1200];
  char value[64];
  if (!read_text_file("/proc/self/cgroup", text, sizeof text)) return 0;
  const char* const entry = std::strstr(text, "0::");
  if (entry == nullptr) return 0;
  const char* const start = entry + 3;
  const std::size_t length = std::strcspn(start, "\n");
  unsigned tightest = 0;
  // A quota may stand at any ancestor, and in a container the root of the mount is the container's own group.
  for (std::size_t n = length;; --n) {
    if (n == length || n == 0 || start[n] == '/') {
      std::snprintf(path, sizeof path, "/sys/fs/cgroup%.*s/cpu.max", static_cast<int>(n), start);
      const unsigned cores = read_text_file(path, value, sizeof value) ? cores_of_quota(value) : 0;
      if (cores != 0 && (tightest == 0 || cores < tightest)) tightest = cores;
    }
    if (n == 0) return tightest;
  }
}

unsigned cores_by_affinity() noexcept {
  const int saved_errno = errno;
  unsigned cores = 0;
  // The fixed mask holds 1024 processors; machines with more answer EINVAL to it.
  cpu_set_t mask;
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) {
    cores = static_cast<unsigned>(CPU_COUNT(&mask));
  } else {
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
    cores = online > 0 ? static_cast<unsigned>(online) : 1;
  }
  errno = saved_errno;
  return cores == 0 ? 1 : cores;
}

}  // namespace

const CpuFeatures& cpu_features() noexcept {
  static const CpuFeatures found = detect_features();
  return found;
}

bool read_cache_sizes(const char* directory, CacheSizes* out) noexcept {
  CacheSizes found;
  found.level1 = found.level2 = found.level3 = 0;
  for (int index = 0; index < 10; ++index) {
    char path[512];
    char type[32];
    char level[16];
    char size[32];
    const auto read = [&](const char* leaf, char* text, std::size_t capacity) noexcept {
      const int length = std::snprintf(path, sizeof path, "%s/index%d/%s", directory, index, leaf);
      return length > 0 && static_cast<std::size_t>(length) < sizeof path && read_text_file(path, text, capacity);
    };
    if (!read("type", type, sizeof type)) break;
    if (std::strncmp(type, "Instruction", 11) == 0) continue;
    if (!read("level", level, sizeof level) || !read("size", size, sizeof size)) continue;
    const std::size_t bytes = parse_size(size);
    if (level[0] == '1') found.level1 = bytes;
    if (level[0] == '2') found.level2 = bytes;
    if (level[0] == '3') found.level3 = bytes;
    char line[16];
    if (read("coherency_line_size", line, sizeof line)) {
      const std::size_t length = parse_size(line);
      if (base::is_power_of_two(length)) found.line = length;
    }
  }
  if (found.last_level() == 0) return false;
  *out = found;
  return true;
}

bool read_caches_of_cores(const char* directory, CacheSizes* out) noexcept {
  // Kinds of cores seen, by their capacity relative to the fastest (1024); machines have two or three.
  constexpr unsigned k_most_kinds = 8;
  constexpr unsigned k_most_cores = 1024;
  std::size_t kinds[k_most_kinds];
  unsigned count = 0;
  bool found = false;
  for (unsigned core = 0; core < k_most_cores; ++core) {
    char path[512];
    char text[32];
    std::snprintf(path, sizeof path, "%s/cpu%u/cpu_capacity", directory, core);
    const bool told = read_text_file(path, text, sizeof text);
    if (!told && core != 0) break;
    const std::size_t capacity = told ? parse_size(text) : 0;
    if (std::find(kinds, kinds + count, capacity) != kinds + count) continue;
    std::snprintf(path, sizeof path, "%s/cpu%u/cache", directory, core);
    CacheSizes own;
    if (!read_cache_sizes(path, &own)) continue;
    if (count < k_most_kinds) kinds[count++] = capacity;
    if (!found) {
      *out = own;
    } else {
      out->line = std::max(out->line, own.line);
      out->level1 = std::max(out->level1, own.level1);
      out->level2 = std::max(out->level2, own.level2);
      out->level3 = std::max(out->level3, own.level3);
    }
    found = true;
  }
  return found;
}

const CacheSizes& cache_sizes() noexcept {
  static const CacheSizes found = detect_cache_sizes();
  return found;
}

unsigned cores_of_quota(const char* cpu_max) noexcept {
  char* end = nullptr;
  const unsigned long long quota = std::strtoull(cpu_max, &end, 10);
  if (end == cpu_max || quota == 0) return 0;
  const char* const rest = end;
  const unsigned long long period = std::strtoull(rest, &end, 10);
  if (end == rest || period == 0) return 0;
  return static_cast<unsigned>(base::divide_up(quota, period));
}

unsigned usable_cores() noexcept {
  static const unsigned quota = read_quota();
  const unsigned cores = cores_by_affinity();
  return quota != 0 && quota < cores ? quota : cores;
}

}  // namespace rtpool::os
