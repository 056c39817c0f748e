// Who serves the arenas of the interpreter's allocator of small objects: the pools that hold the service, or what was there
// before them (the *source*).
//
// The allocator has one pair of functions for arenas in the whole process, so there is one `Arenas`. Sections and the
// activation `enter` their pools and `leave` them. A request is served by the first of these that can:
//
//   1. an arena that one of the entered pools keeps, the pool that entered last first;
//   2. an arena of the source that came back while a pool was frozen, and so was kept;
//   3. new memory of the pool that entered last; a frozen one takes only what it holds free;
//   4. the source. The pool that entered last counts a fallback, and remembers whether it was frozen.
//
// An arena goes back to where it came from, whoever has entered or left meanwhile: its address says so. An arena of the
// source that comes back while an entered pool is frozen is kept until none is: giving it back would be a call into the
// kernel, and so would be the next request.
//
//   AR-1  an arena that is handed out keeps its pool, and with it its memory, for as long as it is used
//   AR-2  every entered pool holds one reference
//
// Thread rule: any thread. One lock, held over the work on a request, growth included: the interpreter's own lock is wider.
// A fork finds it free. Cost: O(entered pools). Nothing is allocated but by pools and source.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/priority_lock.hpp"
#include "pool/pool.hpp"

namespace rtpool::objects {

// As PyObjectArenaAllocator: what served before, and serves whatever no pool does.
struct Source {
  void* context = nullptr;
  void* (*take)(void* context, std::size_t bytes) = nullptr;
  void (*give)(void* context, void* arena, std::size_t bytes) = nullptr;
};

// What was needed of arenas while somebody watched: handed out beyond those that were then, whoever served. Of the
// largest size asked for: the interpreter takes smaller pieces the same way (CPython 16 KiB for the frames of deep
// calls), which the pool's free memory serves.
struct Need {
  std::uint64_t most = 0;  // at once
  std::int64_t alive = 0;  // now; below 0: some that were handed out before have come back
  std::size_t bytes = 0;   // of each; 0: none was asked for
};

class Arenas {
 public:
  // Where arenas come from that no pool serves. Once, before anything else.
  void set_source(const Source& source) noexcept;

  // The pool serves first from now on, until as many `leave` it. False: k_most_entered have entered.
  bool enter(pool::Pool& pool) noexcept;
  void leave(pool::Pool& pool) noexcept;
  bool serving() noexcept;  // whether any has entered
  bool has_entered(const pool::Pool& pool) noexcept;

  // As the source's; nullptr when it has none either.
  void* take(std::size_t bytes) noexcept;
  void give(void* arena, std::size_t bytes) noexcept;
  // Whether the address lies in an arena of a pool, handed out or kept. No lock, O(pools); no pool may end meanwhile.
  static bool contains(const void* address) noexcept;

  // How often an arena was asked for.
  std::uint64_t requests() noexcept;
  // Bytes of the largest arena asked for so far; 0: none was.
  std::size_t arena_bytes() noexcept;
  // Those that were not served while the pool that should have was frozen.
  std::uint64_t frozen_misses() noexcept;
  // Watches what is needed, at most k_most_watches at once. -1: no more.
  int begin_watch() noexcept;
  Need look_at_watch(int watch) noexcept;
  Need end_watch(int watch) noexcept;
  // While it lives, what is asked for is nobody's need, and resident: somebody makes room for what comes later. The
  // interpreter may keep an arena of it, which is alive then.
  class Unwatched {
   public:
    explicit Unwatched(Arenas& arenas) noexcept;
    ~Unwatched();
    Unwatched(const Unwatched&) = delete;
    Unwatched& operator=(const Unwatched&) = delete;

   private:
    Arenas& arenas_;
  };

  constexpr Arenas() = default;
  Arenas(const Arenas&) = delete;
  Arenas& operator=(const Arenas&) = delete;

  static constexpr unsigned k_most_entered = 256;
  static constexpr unsigned k_most_watches = 64;

 private:
  // Kept arenas of the source: a link at the begin of each.
  struct KeptOfSource {
    KeptOfSource* next;
    std::size_t bytes;
  };
  void* take_of_pools_locked(std::size_t bytes) noexcept;
  void* take_kept_of_source_locked(std::size_t bytes) noexcept;
  bool any_frozen_locked() const noexcept;
  KeptOfSource* detach_kept_locked() noexcept;
  void give_to_source(KeptOfSource* arenas) noexcept;
  void note_locked(std::int64_t change, std::size_t bytes) noexcept;
  Need take_need_locked(int watch, bool end) noexcept;
  void install_fork_handlers() noexcept;

  os::PriorityLock lock_;
  Source source_;
  pool::Pool* entered_[k_most_entered] = {};  // the last one last; a pool may stand here several times
  unsigned entered_count_ = 0;
  KeptOfSource* kept_ = nullptr;
  std::uint64_t requests_ = 0;
  std::size_t arena_bytes_ = 0;
  std::uint64_t frozen_misses_ = 0;
  struct Watch {
    bool used = false;
    Need need;
  };
  Watch watches_[k_most_watches];
  unsigned unwatched_ = 0;  // how many Unwatched live
};

// The one of this process.
Arenas& arenas() noexcept;

}  // namespace rtpool::objects
