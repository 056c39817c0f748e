// Where the data of this process's open pools lie, for whoever has an address and may take no lock.
//
// An entry has a version that goes up with each change and is odd while one is under way. The entry around a live block does
// not change; so an entry that changed while it was looked at is not the one, and is passed over. Without the version a reader
// could join the end of a pool that is gone with the begin of one that took its entry, and find a block in neither of them.
//
// Thread rule: `add` and `remove` one thread at a time; `find` any thread at any time, for addresses in live memory (a
// pool's blocks or anybody's). Cost: `find` O(entries in use), without a lock or a store. Failure: `add` and `remove` false.
#pragma once

#include <atomic>
#include <cstdint>

namespace rtpool::shared {

class SharedPool;

class AddressRanges {
 public:
  // False: all entries are in use.
  bool add(SharedPool* pool, std::uintptr_t begin, std::uintptr_t bytes) noexcept {
    for (unsigned i = 0; i < k_entries; ++i) {
      if (entries_[i].bytes.load(std::memory_order_relaxed) != 0) continue;
      entries_[i].change(pool, begin, bytes);
      if (used_.load(std::memory_order_relaxed) <= i) used_.store(i + 1, std::memory_order_release);
      return true;
    }
    return false;
  }

  // False: it has none.
  bool remove(const SharedPool* pool) noexcept {
    for (Entry& entry : entries_) {
      if (entry.pool.load(std::memory_order_relaxed) != pool || entry.bytes.load(std::memory_order_relaxed) == 0) continue;
      entry.change(nullptr, 0, 0);
      return true;
    }
    return false;
  }

  // The pool whose data `at` lies in; nullptr for none.
  SharedPool* find(std::uintptr_t at) const noexcept {
    const unsigned used = used_.load(std::memory_order_acquire);
    for (unsigned i = 0; i < used; ++i) {
      if (SharedPool* const pool = entries_[i].holds(at)) return pool;
    }
    return nullptr;
  }

 private:
  static constexpr unsigned k_entries = 64;

  struct Entry {
    std::atomic<std::uint64_t> version{0};
    std::atomic<std::uintptr_t> begin{0};
    std::atomic<std::uintptr_t> bytes{0};
    std::atomic<SharedPool*> pool{nullptr};

    // Each store is a release and each load of `holds` an acquire: who reads one of the new values reads a new version after it.
    void change(SharedPool* to, std::uintptr_t from, std::uintptr_t size) noexcept {
      const std::uint64_t before = version.load(std::memory_order_relaxed);
      version.store(before + 1, std::memory_order_relaxed);
      begin.store(from, std::memory_order_release);
      bytes.store(size, std::memory_order_release);
      pool.store(to, std::memory_order_release);
      version.store(before + 2, std::memory_order_release);
    }
    SharedPool* holds(std::uintptr_t at) const noexcept {
      const std::uint64_t before = version.load(std::memory_order_acquire);
      const std::uintptr_t into = at - begin.load(std::memory_order_acquire);
      if (into >= bytes.load(std::memory_order_acquire)) return nullptr;
      SharedPool* const found = pool.load(std::memory_order_acquire);
      return (before & 1) == 0 && version.load(std::memory_order_relaxed) == before ? found : nullptr;
    }
  };

  Entry entries_[k_entries];
  std::atomic<unsigned> used_{0};
};

}  // namespace rtpool::shared
