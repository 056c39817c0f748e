// What the kernel's pages are like on this machine. The core counts in pages of 4096 bytes wherever it runs; the kernel's are
// 4, 16 or 64 KiB, and whoever speaks to it about memory keeps to those.
//
// Thread rule: any thread. Errors are errno values; `errno` is left alone.
#pragma once

#include <cstddef>

namespace rtpool::os {

// Bytes of a page of the kernel. Asked once.
std::size_t page_size() noexcept;

// How many bytes of a range are resident. The range may begin and end anywhere. One kernel call for each 4096 pages.
int count_resident(const void* address, std::size_t bytes, std::size_t* out) noexcept;

// The setting that decides whether mappings get transparent huge pages of 2 MiB: `leaf` is "enabled" or, for shared memory,
// "shmem_enabled". Kernels with pages of 4 KiB have one size of them, 2 MiB; with larger ones it is 32 or 512 MiB, and only
// Linux 6.8 and newer have 2 MiB besides, by a setting of its own.
struct HugePageSetting {
  char path[160] = "";   // empty: this kernel has no transparent huge pages of 2 MiB
  char chosen[32] = "";  // what stands between the brackets there
  char larger[160] = "";  // not empty: the setting by which mappings that ask for huge pages get larger ones as well
};

// `folder`: /sys/kernel/mm/transparent_hugepage, or what stands for it in tests. `page`: bytes of a page of the kernel.
HugePageSetting read_huge_page_setting(const char* folder, const char* leaf, std::size_t page) noexcept;
HugePageSetting huge_page_setting(const char* leaf) noexcept;

}  // namespace rtpool::os
