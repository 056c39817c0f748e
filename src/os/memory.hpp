// The OS contract for memory: the only way the rest of rtpool speaks to the kernel about memory.
//
// Every function that can fail returns an errno value, 0 for success, and leaves `errno` alone. Sizes are bytes. Unless
// said otherwise addresses and sizes are multiples of the kernel's page (`page_size`, 4096 or a multiple of it). Thread rule:
// every function may be called by any thread. Cost: at least one kernel call each, so none of them belongs on a hit path.
// Tests replace this class by a fake that fails on call N, and one whose pages are larger (tests/cpp/fake_memory.hpp,
// tests/cpp/large_pages.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

// The core's page. The kernel's is this or a multiple of it.
inline constexpr std::size_t k_page_size = 4096;
inline constexpr std::size_t k_largest_kernel_page = std::size_t{64} << 10;
inline constexpr std::size_t k_huge_page_size = std::size_t{2} << 20;
inline constexpr std::size_t k_gigantic_page_size = std::size_t{1} << 30;

struct AddressRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
};

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  virtual ~Memory() = default;

  // Bytes of a page of the kernel. Enters nothing.
  virtual std::size_t page_size() noexcept = 0;

  // Reserves address space without memory behind it, aligned to `alignment` (a power of two >= the page).
  // Not charged by the kernel until committed. ENOMEM when the address space or RLIMIT_AS is exhausted.
  virtual int reserve(std::size_t bytes, std::size_t alignment, void** out) noexcept = 0;
  // Gives reserved address space back, with whatever memory is behind it.
  virtual int release(void* address, std::size_t bytes) noexcept = 0;
  // Makes a reserved range readable and writable; it reads as zeros, pages appear at first touch. ENOMEM: overcommit refused.
  virtual int commit(void* address, std::size_t bytes) noexcept = 0;
  // Undoes commit: contents are lost, the range stays reserved.
  virtual int decommit(void* address, std::size_t bytes) noexcept = 0;
  // Puts fresh memory in the place of a committed range, whatever kind of pages is behind it: it reads as zeros, pages of the kernel's
  // own size appear at first touch. What was there goes to the kernel, explicit huge pages to their pool.
  virtual int renew(void* address, std::size_t bytes) noexcept = 0;
  // Makes a committed range inaccessible without losing contents, advice or lock; `commit` undoes it. For guard pages.
  // ENOMEM: too many mappings (vm.max_map_count); EINVAL: part of an explicit huge page.
  virtual int guard(void* address, std::size_t bytes) noexcept = 0;
  // Puts explicit huge pages of `page` bytes (2 MiB or 1 GiB) in the place of a reserved or committed range, resident at once.
  // ENOMEM when the kernel's hugetlb pool does not have them; the range can then be committed as before, without its contents.
  virtual int commit_huge(void* address, std::size_t bytes, std::size_t page) noexcept = 0;
  // Makes a committed range resident without changing contents. ENOMEM, EHWPOISON: reported, never a signal.
  virtual int prefault(void* address, std::size_t bytes) noexcept = 0;
  // Locks a committed range in memory / unlocks it. ENOMEM or EPERM: RLIMIT_MEMLOCK.
  virtual int lock(void* address, std::size_t bytes) noexcept = 0;
  virtual int unlock(void* address, std::size_t bytes) noexcept = 0;
  // Asks for (or refuses) transparent huge pages in a range; EINVAL where the kernel has none.
  virtual int advise_huge(void* address, std::size_t bytes, bool wanted) noexcept = 0;
  // Moves what each committed frame (k_huge_page_size, aligned) holds into one huge page and makes all of it resident; contents stay.
  // What is one already is passed by. EINVAL: the kernel cannot (before Linux 6.1), or a frame may not have one; ENOMEM, EAGAIN:
  // not now, and the frames behind are as they were.
  virtual int gather(void* frames, std::size_t bytes) noexcept = 0;
  // Gives the memory behind a committed range back; the range stays committed and reads as zeros afterwards. `locked`: by `lock`; what
  // somebody else has locked (all memory of the process) goes as well.
  virtual int discard(void* address, std::size_t bytes, bool locked) noexcept = 0;
  // Moves what is behind a committed range to another one that has nothing behind it; the old one stays committed and reads as zeros.
  // Each of the two may become a mapping of its own. EINVAL: the kernel cannot (before Linux 5.7); EPERM: the range is locked, which
  // the kernel would not keep; ENOMEM: too many mappings. Nothing has changed then.
  virtual int move(void* from, void* to, std::size_t bytes) noexcept = 0;
  // Counts the resident bytes of a range, which may begin and end anywhere.
  virtual int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept = 0;
  // A full memory barrier on every running thread of this process (membarrier). ENOSYS where there is none;
  // `process_barrier_available` then says false and callers use fences on both sides instead.
  virtual int process_barrier() noexcept = 0;
  virtual bool process_barrier_available() noexcept = 0;

  // Bytes of physical memory of this machine (or of this process's memory cgroup where that is less). 0 if unknown.
  virtual std::size_t physical_memory() noexcept = 0;
  // Bytes the kernel believes can still be had without swapping (MemAvailable, bounded by the cgroup). 0 if unknown.
  virtual std::size_t available_memory() noexcept = 0;
  // RLIMIT_AS of this process in bytes; SIZE_MAX for unlimited.
  virtual std::size_t address_space() noexcept = 0;
  // RLIMIT_MEMLOCK of this process in bytes; SIZE_MAX for unlimited (or CAP_IPC_LOCK).
  virtual std::size_t lockable_memory() noexcept = 0;
  // Transparent huge pages of 2 MiB: 'a'lways, 'm'advise, 'n'ever, '?' the kernel has none of that size, 'l'arger ones come as well.
  virtual char transparent_huge_pages() noexcept = 0;
  // Free explicit huge pages of `page` bytes in the kernel's pool right now.
  virtual std::size_t free_huge_pages(std::size_t page) noexcept = 0;
};

// The kernel itself. One instance, never destroyed.
Memory& memory() noexcept;

// A range of its own that does not fault: `reserve`, `commit` and `prefault` in a row. After a failure nothing is left of it.
inline int reserve_resident(Memory& memory, std::size_t bytes, void** out) noexcept {
  void* address = nullptr;
  if (const int error = memory.reserve(bytes, k_page_size, &address); error != 0) return error;
  int error = memory.commit(address, bytes);
  if (error == 0) error = memory.prefault(address, bytes);
  if (error != 0) memory.release(address, bytes);
  else *out = address;
  return error;
}

}  // namespace rtpool::os
