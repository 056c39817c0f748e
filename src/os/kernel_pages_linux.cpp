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
  char path[160];
  const auto read = [&](const char* subfolder, char* chosen) noexcept {
    std::snprintf(path, sizeof path, "%s/%s%s", folder, subfolder, leaf);
    return read_choice(path, chosen, sizeof setting.chosen);
  };
  const auto use = [&](const char* subfolder) noexcept {
    const bool there = read(subfolder, setting.chosen);
    std::memcpy(setting.path, path, sizeof path);
    return there;
  };
  const bool has_own = use("hugepages-2048kB/");
  char text[32];
  std::snprintf(path, sizeof path, "%s/hpage_pmd_size", folder);
  // Kernels that do not tell: a page table of 8-byte entries fills one page, and a huge page is what it maps.
  const std::size_t largest = read_text_file(path, text, sizeof text) ? std::strtoull(text, nullptr, 10) : page / 8 * page;
  if (!has_own && largest != k_huge_page_size) return {};
  if ((!has_own || std::strcmp(setting.chosen, "inherit") == 0) && !use("")) return {};
  if (largest > k_huge_page_size) {
    char subfolder[64];
    char chosen[sizeof setting.chosen];
    std::snprintf(subfolder, sizeof subfolder, "hugepages-%zukB/", largest >> 10);
    const bool has_own_too = read(subfolder, chosen);
    std::memcpy(setting.larger, path, sizeof path);
    if (has_own_too && std::strcmp(chosen, "inherit") == 0) read("", chosen);
    if (!has_own_too || std::strcmp(chosen, "never") == 0) setting.larger[0] = '\0';
  }
  return setting;
}

HugePageSetting huge_page_setting(const char* leaf) noexcept {
  const KeepErrno keep;
  return read_huge_page_setting("/sys/kernel/mm/transparent_hugepage", leaf, page_size());
}

}  // namespace rtpool::os
