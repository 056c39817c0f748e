// Which nameless memory is what libc's malloc has handed out, told by how it looks: glibc's, and musl's since 1.2.1.
//
// Thread rule: an instance belongs to one thread at a time. Cost: kernel calls, as memory is looked at that may be gone. Failure:
// "no", also where the kernel lets nobody look.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

// Of a mapping from `begin` to `end`: whether `address` is in the heap of a thread, or in a block with a mapping of its own.
// Some calls; one more for each block that lies before it.
bool is_glibc_block(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t address) noexcept;

// musl's groups of blocks. They begin with pages, anywhere in a mapping, as the kernel joins neighbours; so the pages before the
// address are looked at, 256 a call, and those that were looked at for the last question are not again.
class MuslBlocks {
 public:
  // Of a mapping from `begin` to `end`. Quick where one asks for addresses in rising order.
  bool hold(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t address) noexcept;

 private:
  bool look(std::uintptr_t end) noexcept;

  std::uintptr_t mapping_ = 0;  // asked about last: from here to `next_` it is known
  std::uintptr_t next_ = 0;
  std::uintptr_t group_ = 0;  // the last group before `next_`
  std::uintptr_t group_end_ = 0;
};

}  // namespace rtpool::os
