// Linux: /proc/self/maps.
#include "os/memory_map.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace rtpool::os {

MemoryMap::~MemoryMap() { std::free(ranges_); }

int MemoryMap::take() noexcept {
  count_ = 0;
  std::FILE* const file = std::fopen("/proc/self/maps", "re");
  if (file == nullptr) return errno;
  std::size_t capacity = 0;
  int error = 0;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    MappedRange range;
    char access[5] = "";
    unsigned long inode = 0;
    if (std::sscanf(line, "%zx-%zx %4s %*x %*s %lu", &range.begin, &range.end, access, &inode) == 4) {
      if (count_ == capacity) {
        capacity = capacity == 0 ? 512 : 2 * capacity;
        auto* const grown = static_cast<MappedRange*>(std::realloc(ranges_, capacity * sizeof(MappedRange)));
        if (grown == nullptr) {
          error = ENOMEM;
          break;
        }
        ranges_ = grown;
      }
      range.accessible = std::strncmp(access, "---", 3) != 0;
      range.writable = access[1] == 'w';
      range.is_private = access[3] == 'p';
      range.has_file = inode != 0;
      ranges_[count_++] = range;
    }
    // A mapping's path may be longer than the buffer: drop the rest of its line.
    while (std::strchr(line, '\n') == nullptr && std::fgets(line, sizeof line, file) != nullptr) {
    }
  }
  std::fclose(file);
  return error;
}

const MappedRange* MemoryMap::find(std::uintptr_t address) const noexcept {
  const MappedRange* const last = ranges_ + count_;
  const MappedRange* const after =
      std::upper_bound(static_cast<const MappedRange*>(ranges_), last, address,
                       [](std::uintptr_t value, const MappedRange& range) { return value < range.end; });
  return after != last && after->begin <= address ? after : nullptr;
}

}  // namespace rtpool::os
