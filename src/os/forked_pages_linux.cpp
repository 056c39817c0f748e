// Linux: /proc/self/pagemap tells which pages are resident and which of them are in other processes as well; MADV_POPULATE_WRITE
// does to them what a write would.
#include "os/forked_pages.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "os/errno.hpp"
#include "os/kernel_pages.hpp"
#include "os/memory_map.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace rtpool::os {
namespace {

constexpr std::size_t k_most_forked_bytes = std::size_t{1} << 30;
constexpr std::size_t k_most_copied_bytes = std::size_t{256} << 20;
// Of address space: the kernel takes some milliseconds a gigabyte to tell of its pages, there or not.
constexpr std::size_t k_most_looked_at_bytes = std::size_t{4} << 30;

constexpr std::uint64_t k_page_present = std::uint64_t{1} << 63;
constexpr std::uint64_t k_page_exclusive = std::uint64_t{1} << 56;

std::atomic<unsigned> g_forks_seen{1};
std::atomic<unsigned> g_complete_forks{0};  // forks that the last complete call knew of

void count_fork() noexcept { g_forks_seen.fetch_add(1, std::memory_order_relaxed); }

// What the kernel says of each page, some at a time.
class PageTable {
 public:
  PageTable() noexcept : file_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)), error_(file_ < 0 ? errno : 0) {}
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  ~PageTable() {
    if (file_ >= 0) ::close(file_);
  }

  // Calls visit(begin, end, copied) for runs of resident pages in the range; `copied`: bytes that others have as well. Long runs
  // come in parts.
  template <typename Visit>
  void visit_resident(std::uintptr_t begin, std::uintptr_t end, Visit visit) noexcept {
    const std::size_t page = page_size();
    for (std::uintptr_t at = begin; at < end && error_ == 0;) {
      const std::size_t count = std::min((end - at) / page, k_entries);
      const ssize_t got = ::pread(file_, entries_, count * sizeof entries_[0], static_cast<off_t>(at / page * sizeof entries_[0]));
      if (got != static_cast<ssize_t>(count * sizeof entries_[0])) {
        error_ = got < 0 ? errno : EIO;
        return;
      }
      for (std::size_t i = 0; i < count;) {
        const std::size_t first = i;
        std::size_t copied = 0;
        for (; i < count && (entries_[i] & k_page_present) != 0; ++i) copied += (entries_[i] & k_page_exclusive) == 0 ? page : 0;
        if (i != first) visit(at + first * page, at + i * page, copied);
        while (i < count && (entries_[i] & k_page_present) == 0) ++i;
      }
      at += count * page;
    }
  }

  int error() const noexcept { return error_; }

 private:
  static constexpr std::size_t k_entries = 2048;

  int file_;
  int error_;
  std::uint64_t entries_[k_entries];
};

struct Amount {
  std::size_t resident = 0;
  std::size_t copied = 0;
};

Amount measure(PageTable* table, const MappedRange& range) noexcept {
  Amount amount;
  table->visit_resident(range.begin, range.end, [&amount](std::uintptr_t begin, std::uintptr_t end, std::size_t copied) noexcept {
    amount.resident += end - begin;
    amount.copied += copied;
  });
  return amount;
}

void take_back(PageTable* table, const MappedRange& range, ForkedPages* result) noexcept {
  const Amount amount = measure(table, range);
  if (amount.resident > k_most_forked_bytes - result->bytes || amount.copied > k_most_copied_bytes - result->copied) {
    result->left += amount.resident;
    return;
  }
  table->visit_resident(range.begin, range.end, [result](std::uintptr_t begin, std::uintptr_t end, std::size_t copied) noexcept {
    // What another thread has unmapped meanwhile gives ENOMEM and nothing else.
    if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE) == 0) {
      result->bytes += end - begin;
      result->copied += copied;
    } else if (result->error == 0 && errno != ENOMEM) {
      result->error = errno;
    }
  });
}

}  // namespace

unsigned forks() noexcept {
  static const int installed = ::pthread_atfork(nullptr, count_fork, count_fork);
  static_cast<void>(installed);
  return g_forks_seen.load(std::memory_order_relaxed);
}

ForkedPages take_forked_pages_back() noexcept {
  const KeepErrno keep;
  ForkedPages result;
  const unsigned known = forks();
  if (g_complete_forks.load() == known) return result;
  MemoryMap map;
  PageTable table;
  result.error = table.error() != 0 ? table.error() : map.take();
  if (result.error != 0) return result;
  std::size_t count = 0;
  for (std::size_t i = 0; i < map.count(); ++i) {
    if (map[i].writable && map[i].is_private && !map[i].has_file) map[count++] = map[i];
  }
  if (count != 0) {
    std::sort(&map[0], &map[0] + count,
              [](const MappedRange& a, const MappedRange& b) { return a.end - a.begin < b.end - b.begin; });
  }
  std::size_t looked_at = 0;
  for (std::size_t i = 0; i < count && result.error == 0; ++i) {
    looked_at += map[i].end - map[i].begin;
    if (looked_at > k_most_looked_at_bytes) break;  // those that follow are larger
    take_back(&table, map[i], &result);
  }
  if (result.error == 0) result.error = table.error();
  g_complete_forks.store(known);
  return result;
}

}  // namespace rtpool::os
