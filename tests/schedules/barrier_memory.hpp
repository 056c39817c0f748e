// The kernel as the explorer has it. Included behind scheduled.hpp.
#pragma once

#include "fake_memory.hpp"
#include "os/memory.hpp"

namespace rtpool::schedules {

// A kernel whose barrier is the explorer's.
class BarrierMemory final : public os::Memory {
 public:
  bool flushes = true;  // false: a wrong one

  int process_barrier() noexcept override {
    if (flushes) flush_all_stores();
    return 0;
  }
  bool process_barrier_available() noexcept override { return true; }
  std::size_t page_size() noexcept override { return under_.page_size(); }
  int reserve(std::size_t b, std::size_t a, void** o) noexcept override { return under_.reserve(b, a, o); }
  int release(void* a, std::size_t b) noexcept override { return under_.release(a, b); }
  int commit(void* a, std::size_t b) noexcept override { return under_.commit(a, b); }
  int decommit(void* a, std::size_t b) noexcept override { return under_.decommit(a, b); }
  int commit_huge(void* a, std::size_t b, std::size_t p) noexcept override { return under_.commit_huge(a, b, p); }
  int renew(void* a, std::size_t b) noexcept override { return under_.renew(a, b); }
  int guard(void* a, std::size_t b) noexcept override { return under_.guard(a, b); }
  int prefault(void*, std::size_t) noexcept override { return 0; }
  int lock(void*, std::size_t) noexcept override { return 0; }
  int unlock(void*, std::size_t) noexcept override { return 0; }
  int advise_huge(void*, std::size_t, bool) noexcept override { return 0; }
  int gather(void*, std::size_t) noexcept override { return 0; }
  int discard(void* a, std::size_t b, bool l) noexcept override { return under_.discard(a, b, l); }
  int move(void* f, void* t, std::size_t b) noexcept override { return under_.move(f, t, b); }
  int resident(const void* a, std::size_t b, std::size_t* o) noexcept override { return under_.resident(a, b, o); }
  std::size_t physical_memory() noexcept override { return std::size_t{2} << 20; }
  std::size_t available_memory() noexcept override { return 0; }
  std::size_t address_space() noexcept override { return SIZE_MAX; }
  std::size_t lockable_memory() noexcept override { return 0; }
  char transparent_huge_pages() noexcept override { return 'm'; }
  std::size_t free_huge_pages(std::size_t) noexcept override { return 0; }

 private:
  test::FakeMemory under_;
};

}  // namespace rtpool::schedules
