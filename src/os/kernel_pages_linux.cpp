// Linux: sysconf, mincore, and what sysfs says about transparent huge pages.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/bits.hpp"
#include "os/errno.hpp"
#include "os/kernel_pages.hpp"
#include "os/memory.hpp"
#include "os/text_file.hpp"

namespace rtpool::os {
namespace {

// The word in brackets: "always [madvise] never".
bool read_choice(const char* path, char* out, std::size_t capacity) noexcept {
  char text[128];
  if (!read_text_file(path, text, sizeof text)) return false;
  const char* const open = std::strchr(text, '[');
  const char* const close = open != nullptr ? std::strchr(open, ']') : nullptr;
  if (close == nullptr) return false;
  std::snprintf(out, capacity, "%.*s", static_cast<int>(close - open - 1), open + 1);
  return true;
}

}  // namespace

std::size_t page_size() noexcept {
  static const std::size_t bytes = [] {
    const long answer = ::sysconf(_SC_PAGESIZE);
    return answer > 0 ? static_cast<std::size_t>(answer) : k_page_size;
  }();
  return bytes;
}

int count_resident(const void* address, std::size_t bytes, std::size_t* out) noexcept {
  const KeepErrno keep;
  const std::size_t page = page_size();
  const auto begin = reinterpret_cast<std::size_t>(address);
  const std::size_t end = begin + bytes;
  unsigned char present[4096];
  std::size_t count = 0;
  for (std::size_t at = base::align_down(begin, page); at < end;) {
    const std::size_t part = std::min(base::align_up(end - at, page), sizeof present * page);
    if (::mincore(reinterpret_cast<void*>(at), part, present) != 0) return errno;
    for (std::size_t i = 0; i < part / page; ++i, at += page) {
      if ((present[i] & 1U) != 0) count += std::min(at + page, end) - std::max(at, begin);
    }
  }
  *out = count;
  return 0;
}

HugePageSetting read_huge_page_setting(const char* folder, const char* leaf, std::size_t page) noexcept {
  HugePageSetting setting;
  const auto read = [&](const char* subfolder) noexcept {
    std::snprintf(setting.path, sizeof setting.path, "%s/%s%s", folder, subfolder, leaf);
    return read_choice(setting.path, setting.chosen, sizeof setting.chosen);
  };
  const bool has_own = read("hugepages-2048kB/");
  if (has_own && std::strcmp(setting.chosen, "inherit") != 0) return setting;
  if (!has_own) {
    char path[160];
    char text[32];
    std::snprintf(path, sizeof path, "%s/hpage_pmd_size", folder);
    // Kernels that do not tell: a page table of 8-byte entries fills one page, and a huge page is what it maps.
    const std::size_t only = read_text_file(path, text, sizeof text) ? std::strtoull(text, nullptr, 10) : page / 8 * page;
    if (only != k_huge_page_size) return {};
  }
  return read("") ? setting : HugePageSetting{};
}

HugePageSetting huge_page_setting(const char* leaf) noexcept {
  const KeepErrno keep;
  return read_huge_page_setting("/sys/kernel/mm/transparent_hugepage", leaf, page_size());
}

}  // namespace rtpool::os
