// The address space of this process as a list of ranges: where they lie, what may be done there, and whether a file is behind.
// `os/mappings.hpp` says what an address belongs to.
//
// Thread rule: an instance belongs to one thread at a time; other threads may map and unmap meanwhile, so that what is listed may
// be gone. Cost: reads /proc/self/maps, 0.1 to 1 ms, and allocates. Failure: errno values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

struct MappedRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool accessible = false;  // to read, write or run
  bool writable = false;
  bool is_private = false;  // what is written is not seen by others
  bool has_file = false;    // shared memory without a name included
};

class MemoryMap {
 public:
  MemoryMap() = default;
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;
  ~MemoryMap();

  // Lists what is mapped now, by address. ENOMEM, or what opening the file gave.
  int take() noexcept;
  std::size_t count() const noexcept { return count_; }
  MappedRange& operator[](std::size_t i) noexcept { return ranges_[i]; }
  // The one that the address lies in, nullptr if there is none.
  const MappedRange* find(std::uintptr_t address) const noexcept;

 private:
  MappedRange* ranges_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace rtpool::os
