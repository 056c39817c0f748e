// Linux: process_vm_readv.
#include "os/libc_blocks.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "os/mappings.hpp"

namespace rtpool::os {
namespace {

// --- glibc (malloc/arena.c, malloc/malloc.c) ------------------------------------------------------------------------------

constexpr std::uintptr_t k_heap_bytes = std::uintptr_t{64} << 20;  // HEAP_MAX_SIZE: a thread's heap is aligned to it

struct HeapInfo {
  std::uintptr_t arena;
  std::uintptr_t previous;
  std::size_t size;
  std::size_t accessible;
};

bool read_heap(std::uintptr_t address, HeapInfo* heap) noexcept {
  const std::uintptr_t begin = address & ~(k_heap_bytes - 1);
  return peek(begin, heap, sizeof *heap) && heap->size != 0 && heap->size <= k_heap_bytes && heap->size % 4096 == 0 &&
         heap->accessible >= heap->size && heap->accessible <= k_heap_bytes;
}

// The first heap of an arena holds the arena right behind its own description; later ones point to it.
bool is_thread_heap(std::uintptr_t address) noexcept {
  HeapInfo heap;
  if (!read_heap(address, &heap)) return false;
  HeapInfo first;
  const std::uintptr_t begin = heap.arena & ~(k_heap_bytes - 1);
  return heap.arena - begin >= sizeof(HeapInfo) && heap.arena - begin <= 128 && read_heap(begin, &first) &&
         first.arena == heap.arena;
}

// Blocks with a mapping of their own begin with their size, in which glibc up to 2.42 counts these two words, and the bit
// IS_MMAPPED. The kernel joins neighbours.
bool is_mapped_block(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t address) noexcept {
  constexpr std::size_t k_is_mapped = 2;
  while (begin < end) {
    std::size_t words[2];
    if (!peek(begin, words, sizeof words)) return false;
    std::size_t bytes = words[0] + (words[1] & ~std::size_t{7});
    if (bytes % 4096 == 4096 - sizeof words) bytes += sizeof words;
    if ((words[1] & 7) != k_is_mapped || words[0] >= 4096 || bytes == 0 || bytes % 4096 != 0 || bytes > end - begin) return false;
    if (address - begin < bytes) return true;
    begin += bytes;
  }
  return false;
}

// --- musl (src/malloc/mallocng) -------------------------------------------------------------------------------------------

constexpr std::size_t k_unit = 4096;  // what its lengths are counted in

// A group begins with the address of this, which lies elsewhere.
struct GroupInfo {
  std::uintptr_t previous;
  std::uintptr_t next;
  std::uintptr_t group;
  std::uint32_t available;
  std::uint32_t freed;
  std::uintptr_t bits;  // the upper 52: units, 0 for a group inside of another one
};

// 0: no group begins there.
std::size_t group_bytes(std::uintptr_t begin, std::uintptr_t first_word) noexcept {
  GroupInfo info;
  if (first_word == 0 || first_word % alignof(GroupInfo) != 0 || !peek(first_word, &info, sizeof info)) return 0;
  return info.group == begin ? (info.bits >> 12) * k_unit : 0;
}

}  // namespace

bool is_glibc_block(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t address) noexcept {
  return is_thread_heap(address) || is_mapped_block(begin, end, address);
}

bool MuslBlocks::hold(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t address) noexcept {
  if (begin != mapping_ || address < group_) {
    mapping_ = next_ = group_ = group_end_ = begin;
  }
  while (next_ <= address && next_ < end) {
    if (!look(std::min(end, address + 1))) return false;
  }
  return address - group_ < group_end_ - group_;
}

// At the first words of pages from `next_` on, as far as the next group or `end`.
bool MuslBlocks::look(std::uintptr_t end) noexcept {
  constexpr std::size_t k_most = 256;
  std::uintptr_t words[k_most];
  iovec from[k_most];
  std::size_t count = 0;
  for (std::uintptr_t page = next_; page < end && count < k_most; page += k_unit) {
    from[count++] = {reinterpret_cast<void*>(page), sizeof words[0]};
  }
  const iovec to{words, count * sizeof words[0]};
  const int saved = errno;
  const bool copied = ::process_vm_readv(::getpid(), &to, 1, from, count, 0) == static_cast<ssize_t>(to.iov_len);
  errno = saved;
  if (!copied) return false;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uintptr_t page = next_ + i * k_unit;
    if (const std::size_t bytes = group_bytes(page, words[i]); bytes != 0) {
      group_ = page;
      next_ = group_end_ = page + bytes;
      return true;
    }
  }
  next_ += count * k_unit;
  return true;
}

}  // namespace rtpool::os
