// The kernel's memory services as a kernel with larger pages would give them: RTPOOL_TEST_PAGE=16384 or 65536 in the
// environment runs a whole test program so. What is no whole page ends the process with a line that says which call it was; the
// kernel would refuse it, or close or give back what belongs to somebody else. Residency is answered page by page.
//
// Memory itself comes from the real kernel, whose pages must not be larger than the imitated ones.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "os/memory.hpp"
#include "os/shared_memory.hpp"

namespace rtpool::test {

// Bytes of a page of the imitated kernel; of the real one where none is.
inline std::size_t kernel_page() noexcept {
  static const std::size_t page = [] {
    const char* const asked = std::getenv("RTPOOL_TEST_PAGE");
    const std::size_t bytes = asked != nullptr ? std::strtoull(asked, nullptr, 10) : 0;
    const std::size_t real = os::memory().page_size();
    return bytes > real ? bytes : real;
  }();
  return page;
}

inline void expect_whole_pages(const char* call, std::size_t begin, std::size_t bytes) noexcept {
  if (begin % kernel_page() == 0 && bytes % kernel_page() == 0) return;
  std::fprintf(stderr, "%s(%#zx, %zu): no whole pages of %zu bytes\n", call, begin, bytes, kernel_page());
  std::abort();
}

// The address, for the call that is to be passed on.
inline void* whole_pages(const char* call, void* address, std::size_t bytes) noexcept {
  expect_whole_pages(call, reinterpret_cast<std::uintptr_t>(address), bytes);
  return address;
}

// Counts as the imitated kernel would: a page of which a part is resident is resident.
template <class Os>
int count_resident(Os& real, const void* address, std::size_t bytes, std::size_t* out) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = begin + bytes;
  std::size_t count = 0;
  for (std::uintptr_t at = begin / kernel_page() * kernel_page(); at < end; at += kernel_page()) {
    const std::uintptr_t from = at > begin ? at : begin;
    const std::uintptr_t to = at + kernel_page() < end ? at + kernel_page() : end;
    std::size_t part = 0;
    if (const int error = real.resident(reinterpret_cast<const void*>(from), to - from, &part); error != 0) return error;
    if (part != 0) count += to - from;
  }
  *out = count;
  return 0;
}

class LargePagesMemory final : public os::Memory {
 public:
  std::size_t page_size() noexcept override { return kernel_page(); }
  int reserve(std::size_t bytes, std::size_t alignment, void** out) noexcept override {
    expect_whole_pages("reserve", std::size_t{0}, bytes);
    return real_.reserve(bytes, alignment > kernel_page() ? alignment : kernel_page(), out);
  }
  int release(void* at, std::size_t bytes) noexcept override { return real_.release(whole_pages("release", at, bytes), bytes); }
  int commit(void* at, std::size_t bytes) noexcept override { return real_.commit(whole_pages("commit", at, bytes), bytes); }
  int decommit(void* at, std::size_t bytes) noexcept override { return real_.decommit(whole_pages("decommit", at, bytes), bytes); }
  int renew(void* at, std::size_t bytes) noexcept override { return real_.renew(whole_pages("renew", at, bytes), bytes); }
  int guard(void* at, std::size_t bytes) noexcept override { return real_.guard(whole_pages("guard", at, bytes), bytes); }
  int commit_huge(void* at, std::size_t bytes, std::size_t page) noexcept override {
    return real_.commit_huge(whole_pages("commit_huge", at, bytes), bytes, page);
  }
  int prefault(void* at, std::size_t bytes) noexcept override { return real_.prefault(whole_pages("prefault", at, bytes), bytes); }
  int lock(void* at, std::size_t bytes) noexcept override { return real_.lock(whole_pages("lock", at, bytes), bytes); }
  int unlock(void* at, std::size_t bytes) noexcept override { return real_.unlock(whole_pages("unlock", at, bytes), bytes); }
  int advise_huge(void* at, std::size_t bytes, bool wanted) noexcept override {
    return real_.advise_huge(whole_pages("advise_huge", at, bytes), bytes, wanted);
  }
  int gather(void* at, std::size_t bytes) noexcept override { return real_.gather(whole_pages("gather", at, bytes), bytes); }
  int discard(void* at, std::size_t bytes, bool locked) noexcept override {
    return real_.discard(whole_pages("discard", at, bytes), bytes, locked);
  }
  int move(void* from, void* to, std::size_t bytes) noexcept override {
    return real_.move(whole_pages("move", from, bytes), whole_pages("move", to, bytes), bytes);
  }
  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return count_resident(real_, address, bytes, out);
  }
  int process_barrier() noexcept override { return real_.process_barrier(); }
  bool process_barrier_available() noexcept override { return real_.process_barrier_available(); }
  std::size_t physical_memory() noexcept override { return real_.physical_memory() / kernel_page() * kernel_page(); }
  std::size_t available_memory() noexcept override { return real_.available_memory(); }
  std::size_t address_space() noexcept override { return os::memory().address_space(); }
  std::size_t lockable_memory() noexcept override { return real_.lockable_memory(); }
  char transparent_huge_pages() noexcept override { return real_.transparent_huge_pages(); }
  std::size_t free_huge_pages(std::size_t page) noexcept override { return real_.free_huge_pages(page); }

 private:
  os::Memory& real_ = os::memory();
};

// What tests give a pool that is to use the machine's memory.
inline os::Memory& machine_memory() noexcept {
  static LargePagesMemory& large = *new LargePagesMemory;
  return kernel_page() > os::memory().page_size() ? static_cast<os::Memory&>(large) : os::memory();
}

}  // namespace rtpool::test
