// The object arenas of a pool: large pieces that an allocator of small objects takes, cuts up and gives back when all in
// them is free. An interpreter that gives them back to the kernel pays for each anew in every iteration of a loop; here
// they are kept.
//
// A kept arena is the next one handed out (last in, first out). It is free memory of the pool: what needs room for arrays
// takes it before it asks the kernel for more, and trimming gives it back.
//
// A loop that is learned from or prepared for gets arenas that are resident, and memory for them by whole frames. What an
// arena leaves of those, the *rest*, waits here for the next one: a frozen pool is not to serve arrays with it that its plan does
// not know. Any other program holds no more than it would without a pool: its arenas come *untouched*, page by page as it writes
// them, from addresses committed for each alone, so that no huge page is in reach of the first write; frames that are all in use
// are made huge pages as the next one is begun. Once written they are kept whole, as many as were needed at once: the most that a
// loop held by itself, in whole arenas. Less than that would fault in every round: CPython goes on with the arena that it has
// begun last and writes its rest, and the next time another one is the last, of which it then leaves the rest.
//
//   OA-1  what is handed out and what is kept is what the pages say, run by run
//   OA-2  the list of kept arenas holds each of them once, linked both ways; those below one were given back before it
//
// Thread rule: any thread; one lock, held for O(1) work but where said, and across a fork by the pool. It is never held while
// the kernel makes memory ready. Cost: O(1) and the descriptors of the arena's pages; `take_new` may enter the kernel.
// Failure: nullptr.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"
#include "os/priority_lock.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pool {

// A pool holds at most this part of its limit in object arenas: the rest is for arrays.
inline constexpr std::size_t k_object_part = 4;
// CPython cuts its arenas into pools of 16 KiB (4 KiB before 3.10), aligned to their size: one that is not loses a pool.
inline constexpr std::size_t k_object_arena_alignment = std::size_t{16} << 10;

class ObjectArenas {
 public:
  struct Counts {
    std::uint64_t bytes = 0;       // handed out
    std::uint64_t count = 0;
    std::uint64_t peak_bytes = 0;  // the most of it since reset_peak
    std::uint64_t kept_bytes = 0;
    std::uint64_t kept_count = 0;
    std::uint64_t hits = 0;        // served by a kept arena
    std::uint64_t misses = 0;      // served by free or new memory
    std::uint64_t refusals = 0;    // not served
  };

  ObjectArenas(pages::PageStore& store, os::Clock& clock) noexcept : store_(store), clock_(clock) {}
  ObjectArenas(const ObjectArenas&) = delete;
  ObjectArenas& operator=(const ObjectArenas&) = delete;

  // An arena that is kept.
  void* take_kept(std::size_t bytes) noexcept;
  // One made of free runs, or of memory that the kernel gives.
  using Growing = pages::PageStore::Growing;
  void* take_new(std::size_t bytes, Growing growing) noexcept;
  // The caller has written to every page of an arena that it has taken.
  void note_touched(void* arena) noexcept;
  // False, and nothing was done: not the address of an arena that is handed out.
  bool give(void* arena, bool clear) noexcept;
  // Whether the address lies in an arena, handed out or kept. No lock.
  bool contains(const void* address) const noexcept;
  // Kept arenas, and the rest, that nobody has used for so long become free runs of the store, at most `most` of them, the oldest
  // first; how many bytes. O(those) in one turn of the lock; enters the kernel, without the lock, for those that came untouched.
  std::size_t give_kept_back(os::Nanoseconds older_than, std::size_t most = SIZE_MAX) noexcept;
  // Bytes handed out and kept.
  std::size_t held() noexcept;
  void count_refusal() noexcept;

  Counts counts() noexcept;
  void reset_peak() noexcept;
  // nullptr or the id of a broken invariant; `walked` is what a walk over all pages found, the lock held since before it.
  struct Walked {
    std::uint64_t bytes = 0;
    std::uint64_t kept_bytes = 0;
  };
  const char* validate_locked(const Walked& walked) const noexcept;
  os::PriorityLock& lock() noexcept { return lock_; }

 private:
  void* mark_locked(pages::PageIndex first, std::uint32_t pages, bool untouched) noexcept;
  void gather_before(pages::PageIndex first) noexcept;
  std::size_t take_off_kept(os::Nanoseconds older_than, std::size_t most, pages::PageIndex* untouched) noexcept;
  pages::PageIndex cut_rest_locked(std::uint32_t pages) noexcept;
  std::size_t give_rest_back_locked(os::Nanoseconds until) noexcept;
  void keep_rest_locked(pages::PageIndex first, std::uint32_t pages) noexcept;
  void* hand_out_locked(pages::PageIndex first) noexcept;
  void keep_locked(pages::PageIndex first) noexcept;
  void no_longer_kept_locked(pages::PageIndex first) noexcept;
  void* address_of(pages::PageIndex page) const noexcept { return store_.view().base + std::size_t{page} * os::k_page_size; }

  pages::PageStore& store_;
  os::Clock& clock_;
  os::PriorityLock lock_;
  pages::PageIndex kept_ = pages::k_no_page;  // given back last; each links to the one before, and back (`kept_next`)
  pages::PageIndex oldest_ = pages::k_no_page;
  pages::PageIndex rest_ = pages::k_no_page;  // a run of rest_pages_
  std::uint32_t rest_pages_ = 0;
  os::Nanoseconds rest_since_ = 0;
  pages::PageIndex gathered_ = 0;  // frames that end here or before have been looked at
  Counts counts_;
};

}  // namespace rtpool::pool
