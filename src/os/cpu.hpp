// The OS contract for processors: which instructions this machine has, how large its caches are, and how many cores
// this thread may use. The only place of rtpool that asks.
//
// Thread rule: any thread. No function fails: what cannot be found out is answered by the value named at the function.
#pragma once

#include <cstddef>

namespace rtpool::os {

// Instruction sets that the processor has and the kernel saves for us. All false on other architectures than x86.
struct CpuFeatures {
  bool sse2 = false;
  bool avx2 = false;
  bool avx512f = false;
};

// Bytes of the data caches one core sees; `level3` is the whole of the last level that the core shares with others.
// A level the machine does not have is 0. Where cores differ (big.LITTLE): of each level the largest any of them has, since a
// thread may run on any.
struct CacheSizes {
  std::size_t line = 64;
  std::size_t level1 = 32 << 10;
  std::size_t level2 = 512 << 10;
  std::size_t level3 = 8 << 20;

  constexpr std::size_t last_level() const noexcept { return level3 != 0 ? level3 : level2 != 0 ? level2 : level1; }
};

// O(1) after the first call.
const CpuFeatures& cpu_features() noexcept;

// Cached after the first call, which reads a dozen files for each kind of core. Where neither sysfs nor libc knows: the values of
// CacheSizes{}.
const CacheSizes& cache_sizes() noexcept;

// Reads <directory>/index<N>/{level,type,size,coherency_line_size}; false and `out` unchanged if there is no data cache
// in it.
bool read_cache_sizes(const char* directory, CacheSizes* out) noexcept;

// The same of all cores: of <directory>/cpu<N>/cache, N from 0. Cores are of one kind where their cpu_capacity is the same, or
// where they have none, as on most PCs.
bool read_caches_of_cores(const char* directory, CacheSizes* out) noexcept;

// Cores the calling thread may run on: its affinity mask, bounded by the CPU quota of the process's cgroup (rounded up,
// read once). At least 1. One kernel call.
unsigned usable_cores() noexcept;

// "max 100000" or "150000 100000" (cgroup v2 cpu.max) to whole cores, rounded up; 0 for no limit or text that is not
// one.
unsigned cores_of_quota(const char* cpu_max) noexcept;

}  // namespace rtpool::os
