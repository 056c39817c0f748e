// The kernel's memory services with dials for failures: call N of a kind, every call from N on, or call N of any kind fails; and a
// place to wait in (`enter`), for a kernel that takes long.
// Everything else goes to the real kernel, so that the memory handed out is real memory. Prefault and lock only count:
// pages come at first touch, which keeps tests fast. The kernel's pages are as large as large_pages.hpp has them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>

#include "large_pages.hpp"

namespace rtpool::test {

class FakeMemory final : public os::Memory {
 public:
  enum Kind { k_reserve, k_commit, k_commit_huge, k_prefault, k_lock, k_discard, k_guard, k_gather, k_renew, k_move, k_kinds };
  struct Dial {
    int calls = 0;
    int fail_from = -1;  // 0-based number of the first call that fails; -1 never
    int fail_count = 1 << 30;
    int error = ENOMEM;
  };
  Dial dials[k_kinds];
  int all_calls = 0;
  int refusals = 0;
  int fail_any_at = -1;  // the call with this number fails, whatever its kind
  std::function<void(Kind)> enter = [](Kind) {};  // set while no other thread uses the fake
  std::size_t gathered = 0;  // bytes
  char transparent = 'm';
  bool huge_wanted = false;  // as was advised last
  std::size_t physical = std::size_t{1} << 30;
  std::size_t available = 0;
  std::size_t addresses = SIZE_MAX;  // RLIMIT_AS
  bool barrier = true;
  int barriers = 0;  // asked for
  bool barrier_fails = false;  // it was there when asked, and is refused from now on

  std::size_t page_size() noexcept override { return real().page_size(); }
  int reserve(std::size_t bytes, std::size_t alignment, void** out) noexcept override {
    const int error = refused(k_reserve);
    return error != 0 ? error : real().reserve(bytes, alignment, out);
  }
  int release(void* address, std::size_t bytes) noexcept override {
    return_explicit(address, bytes);
    return real().release(address, bytes);
  }
  int commit(void* address, std::size_t bytes) noexcept override {
    const int error = refused(k_commit);
    return error != 0 ? error : real().commit(address, bytes);
  }
  int decommit(void* address, std::size_t bytes) noexcept override { return real().decommit(address, bytes); }
  int renew(void* address, std::size_t bytes) noexcept override {
    whole_pages("renew", address, bytes);
    if (const int error = refused(k_renew); error != 0) return error;
    return_explicit(address, bytes);
    return real().renew(address, bytes);
  }
  int guard(void* address, std::size_t bytes) noexcept override {
    const int error = refused(k_guard);
    return error != 0 ? error : real().guard(address, bytes);
  }
  // Memory that is to read as zeros, of a pool that counts its pages.
  int commit_huge(void* address, std::size_t bytes, std::size_t page) noexcept override {
    if (const int error = refused(k_commit_huge); error != 0) return error;
    return_explicit(address, bytes);
    if (explicit_free < bytes / page) return ENOMEM;
    const std::lock_guard guard(mutex_);
    for (std::size_t at = 0; at < bytes; at += page) explicit_pages[static_cast<char*>(address) + at] = page;
    explicit_free -= bytes / page;
    return real().renew(address, bytes);
  }
  int prefault(void* address, std::size_t bytes) noexcept override {
    whole_pages("prefault", address, bytes);
    return refused(k_prefault);
  }
  int lock(void* address, std::size_t bytes) noexcept override {
    whole_pages("lock", address, bytes);
    return refused(k_lock);
  }
  int unlock(void*, std::size_t) noexcept override { return 0; }
  int advise_huge(void* address, std::size_t bytes, bool wanted) noexcept override {
    whole_pages("advise_huge", address, bytes);
    huge_wanted = wanted;
    return 0;
  }
  int gather(void* frames, std::size_t bytes) noexcept override {
    whole_pages("gather", frames, bytes);
    gathered += bytes;
    return refused(k_gather);
  }
  int discard(void* address, std::size_t bytes, bool locked) noexcept override {
    const int error = refused(k_discard);
    return error != 0 ? error : real().discard(address, bytes, locked);
  }
  int move(void* from, void* to, std::size_t bytes) noexcept override {
    const int error = refused(k_move);
    return error != 0 ? error : real().move(from, to, bytes);
  }
  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return real().resident(address, bytes, out);
  }
  int process_barrier() noexcept override {
    {
      const std::lock_guard guard(mutex_);
      ++barriers;
    }
    return barrier_fails ? EPERM : barrier ? real().process_barrier() : ENOSYS;
  }
  bool process_barrier_available() noexcept override { return barrier && real().process_barrier_available(); }
  std::size_t physical_memory() noexcept override { return physical; }
  std::size_t available_memory() noexcept override { return available; }
  std::size_t address_space() noexcept override { return addresses; }
  std::size_t lockable_memory() noexcept override { return std::size_t{8} << 20; }
  char transparent_huge_pages() noexcept override { return transparent; }
  std::size_t free_huge_pages(std::size_t) noexcept override { return 0; }

  std::map<char*, std::size_t> explicit_pages;  // those in use, with their sizes
  std::size_t explicit_free = std::size_t{1} << 20;

 private:
  static os::Memory& real() noexcept { return machine_memory(); }
  void return_explicit(void* address, std::size_t bytes) noexcept {
    const std::lock_guard guard(mutex_);
    auto* const begin = static_cast<char*>(address);
    for (auto at = explicit_pages.lower_bound(begin); at != explicit_pages.end() && at->first < begin + bytes;) {
      if (at->first + at->second > begin + bytes) std::abort();  // the kernel splits none
      at = explicit_pages.erase(at);
      ++explicit_free;
    }
  }
  // Threads may share a fake; what its dials say is for when they are done.
  int refused(Kind kind) noexcept {
    enter(kind);
    const std::lock_guard guard(mutex_);
    Dial& dial = dials[kind];
    const int number = dial.calls++;
    if (all_calls++ == fail_any_at) {
      ++refusals;
      return ENOMEM;
    }
    if (dial.fail_from < 0 || number < dial.fail_from || number - dial.fail_from >= dial.fail_count) return 0;
    ++refusals;
    return dial.error;
  }

  std::mutex mutex_;
};

}  // namespace rtpool::test
