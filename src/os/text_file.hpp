// Small text files of the kernel (sysfs, procfs, cgroups), read without the heap.
// Thread rule: any thread. Cost: three kernel calls. `errno` is left alone.
#pragma once

#include <cstddef>

namespace rtpool::os {

// Reads at most `capacity - 1` bytes of the file and ends them with '\0'; false if it cannot be read or is empty.
bool read_text_file(const char* path, char* buffer, std::size_t capacity) noexcept;

}  // namespace rtpool::os
