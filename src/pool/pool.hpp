// The pool: what the NumPy binding and C++ callers use. Everything below this folder is inside.
//
// Thread rule: every function may be called by any thread at any time, also by threads without Python state and after a
// fork; exceptions are named. No function throws. Cost: `allocate`, `allocate_zeroed` and `release` hit in a few
// nanoseconds without lock, atomic read-modify-write or kernel call; misses are O(1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"
#include "os/memory.hpp"

namespace rtpool::pool {

enum class HugePages : std::uint8_t { off, transparent, explicit_2mib, explicit_1gib };
enum class WhenFull : std::uint8_t { grow, fallback, raise };
enum class OnMiss : std::uint8_t { fallback, raise };

inline constexpr std::size_t k_name_capacity = 64;
inline constexpr std::size_t k_no_limit = 0;

// What a caller asks for. `limit` 0 means: `size` when when_full is not grow and size is not 0, else physical memory.
struct Options {
  std::size_t size = 0;
  std::size_t limit = k_no_limit;
  char name[k_name_capacity] = {};
  bool prefault = true;
  bool lock = false;
  HugePages huge_pages = HugePages::transparent;
  WhenFull when_full = WhenFull::grow;
  bool zero_on_free = false;
  bool strict = false;
  // Finds misuse of the blocks at a price in time and memory: red zones, poison, a quarantine, guard pages, and where each
  // block was made and freed (debug_layer.hpp). With `strict` the first misuse aborts the process after its report.
  bool debug = false;
  // Nanoseconds after which free memory goes back to the kernel by itself, in whole 2 MiB frames; 0: never. Not while the pool is
  // frozen. Sooner where the machine is short of memory.
  os::Nanoseconds idle = 0;
  // Be a debug pool where AddressSanitizer or Valgrind watches this process, and tell it which memory may be touched
  // (base/watch.hpp); nothing elsewhere.
  bool watch = false;
};

// Where a pool's memory comes from when the pool itself cannot serve (when_full or on_miss = fallback).
// The functions follow malloc, calloc, realloc and free; they must be thread-safe. Default: those of libc.
struct Fallback {
  void* (*malloc)(std::size_t size);
  void* (*calloc)(std::size_t count, std::size_t size);
  void* (*realloc)(void* block, std::size_t size);
  void (*free)(void* block);
  void* (*aligned)(std::size_t alignment, std::size_t size) = nullptr;  // as aligned_alloc; nullptr: there is none
};

// The step of construction or growth that failed, for the error text.
enum class Step : std::uint8_t { none, arguments, reserve, commit, prefault, lock, huge_pages, metadata };

// One setting that is not in force as asked: which one, why (errno), and the figures the fix needs.
struct Degradation {
  Step step = Step::none;
  int error = 0;
  std::size_t asked = 0;  // bytes, or the page size for huge_pages
  std::size_t got = 0;    // bytes in force; RLIMIT_MEMLOCK for lock; free pages x size for huge_pages
};

// What is in force. `degradations` has `count` entries, in the order of `Step`, at most one a step.
struct Effective {
  std::size_t size = 0;
  std::size_t limit = 0;
  bool prefault = true;
  bool lock = false;
  HugePages huge_pages = HugePages::off;
  std::size_t count = 0;
  Degradation degradations[4];
};

// What a pool leaves to others although its limit would allow it; 0: nothing. For pools that programs use without knowing.
struct Restraint {
  std::size_t spare = 0;        // bytes of the machine's available memory that growth does not touch
  std::size_t most_zeroed = 0;  // larger zeroed requests do not make the pool grow: often only a part is ever touched
};

// Counters since construction, except the current_ ones. Sizes are bytes. The table adds up:
// hits + misses == total_count + failures-that-reached-the-pool; current <= peak; granted blocks + free runs + slabs' slack == capacity.
struct Stats {
  std::uint64_t current_bytes = 0;    // granted to live blocks of the pool (fallback blocks not included)
  std::uint64_t current_count = 0;
  std::uint64_t peak_bytes = 0;       // exact with one thread; with several never too low (sum of each heap's own peak)
  std::uint64_t peak_count = 0;
  std::uint64_t total_bytes = 0;      // granted, summed over all allocations ever served by the pool
  std::uint64_t total_count = 0;
  std::uint64_t requested_bytes = 0;  // of current_bytes, what was asked for
  std::uint64_t capacity_bytes = 0;   // memory held: live, cached and free
  std::uint64_t resident_bytes = 0;   // of capacity_bytes, what is in physical memory
  std::uint64_t hits = 0;             // served from a thread's own heap
  std::uint64_t misses = 0;           // served by the slow path or not at all
  std::uint64_t growths = 0;          // times memory was taken from the kernel
  std::uint64_t kernel_calls = 0;     // memory calls into the kernel
  std::uint64_t returned_bytes = 0;   // given back to the kernel: trimmed, idle, or in exchange for other memory
  std::uint64_t fallbacks = 0;        // requests passed on to the fallback allocator
  std::uint64_t failures = 0;         // requests answered with nullptr
  std::uint64_t remote_frees = 0;     // blocks freed by another thread than the one whose heap they belong to
  std::uint64_t misuses = 0;          // foreign, interior or doubly freed pointers; debug pools: also blocks written outside of
                                      // their bounds or their life. Reported and survived
  std::uint64_t largest_free_bytes = 0;  // largest run that can be handed out without growing
  std::uint64_t fallback_count = 0;      // live fallback blocks
  // Object arenas, apart from all of the above but capacity, residency, growths and kernel calls.
  std::uint64_t object_bytes = 0;        // handed out
  std::uint64_t object_count = 0;
  std::uint64_t object_peak_bytes = 0;
  std::uint64_t object_kept_bytes = 0;   // kept for the next requests: free memory
  std::uint64_t object_hits = 0;         // served by a kept arena
  std::uint64_t object_misses = 0;       // all other requests for arenas
  std::uint64_t object_fallbacks = 0;    // of these, not served by the pool
};

// One line of a plan: blocks of `size` granted bytes. `zeroed` of `allocations` were asked for as zeroed.
struct PlanEntry {
  std::uint64_t size = 0;         // granted bytes (a size class or whole pages)
  std::uint64_t requested = 0;    // the largest request seen that was granted this size
  std::uint64_t most_alive = 0;   // most blocks alive at once during learning
  std::uint64_t allocations = 0;
  std::uint64_t zeroed = 0;
};

// A request the frozen pool could not serve: exact requested bytes and how often.
struct MissEntry {
  std::uint64_t requested = 0;
  std::uint64_t count = 0;
};

// The first broken invariant: its id as in src/README.md, the address or page concerned, a line of text.
struct CheckResult {
  bool ok = true;
  char invariant[16] = {};
  char text[240] = {};
};

// A live block of a debug pool.
struct LiveBlock {
  const void* address = nullptr;
  std::uint64_t size = 0;         // as asked for
  std::uint64_t number = 0;       // counts the blocks the pool has made, from 1
  std::uint64_t age = 0;          // nanoseconds
  const char* made_at = nullptr;  // the call site; lives as long as the pool
};

// What of a pool lies at an address.
enum class PoolPart : std::uint8_t {
  block,         // a large block: handed out, or kept for the next request of its size
  small_blocks,  // a slab
  object_arena,  // that an allocator of small objects cuts up, or kept for it
  free_pages,
  not_ready,     // of the arena, not taken from the kernel yet
  descriptors,   // out-of-band descriptions of pages
  records,       // of slabs and heaps
  control,       // the pool's own state
};

struct PoolPlace {
  char name[k_name_capacity] = {};
  std::uint64_t id = 0;
  PoolPart part = PoolPart::control;
};

// Writes where the calling thread stands in the program, as text without an end of line, and returns its length; 0 if it
// cannot say. Called on every allocation and free of a debug pool, from any thread, with none of the pool's locks held.
using CallSite = std::size_t (*)(char* text, std::size_t capacity) noexcept;

class Pool;

struct CreateResult {
  Pool* pool = nullptr;  // nullptr on failure
  Step step = Step::none;
  int error = 0;
  std::size_t asked = 0;
  std::size_t got = 0;
};

class Pool {
 public:
  // Makes a pool with one reference. With strict, any degradation is a failure. `name` is cut at k_name_capacity - 1.
  static CreateResult create(const Options& options, os::Memory& memory = os::memory(), const Fallback* fallback = nullptr) noexcept;

  // References keep the pool; the last one dropped destroys it if no block is alive, else it stays until process end
  // (its blocks remain valid and may still be freed). The binding holds one per Python object and one per capsule.
  void add_reference() noexcept;
  void drop_reference() noexcept;

  // Blocks are 64-byte aligned below 4033 bytes and page aligned from there on. 0 bytes is served as 1.
  // nullptr: limit reached, no memory, or frozen with OnMiss::raise; `failures` counts it.
  void* allocate(std::size_t size) noexcept;
  void* allocate_zeroed(std::size_t size) noexcept;
  // `alignment`: a power of two, at most a page (4096); anything else is answered with nullptr. Above 64 bytes the block is
  // granted whole pages. `resize` keeps 64 bytes of it.
  void* allocate_aligned(std::size_t size, std::size_t alignment) noexcept;
  // As realloc: nullptr leaves the old block alone. `block` may be nullptr. The contents up to the smaller size are kept.
  void* resize(void* block, std::size_t size) noexcept;
  // `block` may be nullptr. A pointer that is not a live block of this pool (or of its fallback) is reported in one line
  // on standard error, counted in `misuses` and otherwise ignored. Never takes a lock that another thread may hold for
  // long, never enters the kernel for memory (fallback blocks go to the fallback's free).
  void release(void* block) noexcept;
  // The same; `claimed` is what the caller believes the block was asked for with, 0: nothing. Only debug pools look at it: they
  // report a size that is not right, count it in `misuses`, and free the block all the same.
  void release(void* block, std::size_t claimed) noexcept;

  // True if the address lies in the pool's arena (live or not). O(1).
  bool contains(const void* address) const noexcept;
  // Granted bytes of a live block of the pool, 0 for anything else.
  std::size_t usable_size(const void* block) const noexcept;
  // True if `block` is a live block that the fallback allocator served for this pool. For callers that hold blocks of
  // unknown origin, which `release` would report. O(1); takes no lock while the pool has no such blocks.
  bool is_fallback_block(const void* block) noexcept;
  // The pool whose arena contains the address, or nullptr. O(number of pools).
  static Pool* find(const void* address) noexcept;
  // The pool that a live block belongs to, also where its fallback served it (by its begin only), or nullptr. O(number of
  // pools); a lock is taken only while any pool has blocks of its fallback and the address is in no pool's arena.
  static Pool* find_owner(const void* address) noexcept;
  // The first pool from `*slot` on that somebody holds, with one more reference, the caller's to drop; nullptr: none. To go
  // through all: from slot 0, and one slot on after each.
  static Pool* next_held(std::uint32_t* slot) noexcept;
  // Whose memory of a pool, metadata included, the address is in: false if no pool's. For reports: it looks at what other
  // threads may just change, so the part is what it was a moment ago. O(number of pools + pages of the run).
  static bool locate(const void* address, PoolPlace* out) noexcept;

  Stats stats() noexcept;
  // Where the pools of the process have addresses but no memory, at least 2 MiB in a row; how many, at most `capacity`.
  // For who is about to make all memory of the process resident.
  static std::size_t absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept;
  void reset_peak() noexcept;
  // Gives free memory back to the kernel in whole 2 MiB frames; bytes given back. Live blocks keep their contents.
  std::size_t trim() noexcept;
  // The same for what has not been used for `older_than` nanoseconds. Ages are counted in steps between looks: those of the
  // scavenger (`Options::idle`) and those of this function. At the first look at a pool what is free counts as unused since the
  // pool last grew.
  std::size_t trim(os::Nanoseconds older_than) noexcept;
  // While frozen the pool makes no kernel call for memory. Freezes nest no deeper than one: freezing again changes on_miss.
  void freeze(OnMiss on_miss) noexcept;
  void unfreeze() noexcept;
  bool frozen() const noexcept;
  // Whether any pool of the process is frozen: a section may be running.
  static bool any_frozen() noexcept;
  // Called in each freeze, once `any_frozen` says so, by the thread that freezes and without any of the pool's locks: for who has
  // memory of its own to make ready for a section. There is one; it stays.
  static void set_freeze_listener(void (*listener)() noexcept) noexcept;
  // Growth that would break the restraint counts as growth beyond the limit: `when_full` says what becomes of the
  // request. Available memory is looked at once in a quarter of `spare`, at most 64 MiB, of growth.
  void restrain(const Restraint& restraint) noexcept;
  Restraint restraint() const noexcept;
  // Walks every structure. Slow; other threads' heaps are stopped meanwhile.
  CheckResult check() noexcept;

  const Options& options() const noexcept;  // as asked
  Effective effective() noexcept;           // as in force
  const char* name() const noexcept;
  std::uint64_t id() const noexcept;        // unique in the process, never reused
  std::size_t live_blocks() noexcept;       // current_count + fallback_count
  void* arena_begin() const noexcept;
  std::size_t arena_reserved() const noexcept;

  // Learning. Begin fails (false) if learning is already on. End fills the entries, sorted by size, and returns how many
  // there are; if that is more than `capacity`, or there are no entries to fill, learning goes on. Hits cost about 50 ns
  // more while learning, nothing otherwise.
  bool begin_learning() noexcept;
  std::size_t end_learning(PlanEntry* entries, std::size_t capacity) noexcept;
  bool learning() const noexcept;
  // Makes ready and resident what the plan says, in the calling thread's heap. Returns the entries fully prepared; less
  // than `count` when the limit or the kernel refused: the rest is what is missing.
  std::size_t prepare(const PlanEntry* entries, std::size_t count) noexcept;
  // Clears idle free blocks of `size` granted bytes so that the next `allocate_zeroed` finds them zero. At most
  // `max_bytes`; returns bytes cleared. Calling thread's heap only. For the idle time of a real-time loop.
  std::size_t zero_ahead(std::size_t size, std::size_t blocks, std::size_t max_bytes) noexcept;
  // Requests missed while frozen, per exact size, since the last freeze(). Fills at most `capacity`, returns how many there are.
  std::size_t misses_by_size(MissEntry* entries, std::size_t capacity) noexcept;

  // Object arenas: large pieces for an allocator of small objects, kept when it gives them back (object_arenas.hpp). `bytes`
  // from 8 KiB on, aligned to 16 KiB. A pool holds at most a quarter of its limit in them, so that arrays find room, and while
  // frozen takes no memory from the kernel for them. nullptr: there is none. An arena that is handed out keeps the pool; a
  // pool that is kept by nothing else gives all other memory back. New ones are resident where that is asked for and while the
  // pool learns; else their pages may come as they are first written, as by the kernel's own mmap.
  enum class ArenaFrom : std::uint8_t { kept, any, any_resident };
  void* take_object_arena(std::size_t bytes, ArenaFrom from = ArenaFrom::any) noexcept;
  // `arena` may be nullptr. Whatever is not is reported and counted as `release` does.
  void give_object_arena(void* arena) noexcept;
  // Whether the address lies in an object arena of this pool. O(1), no lock.
  bool in_object_arena(const void* address) const noexcept;
  // Sees to it that `count` arenas are kept, resident and touched; how many there are of them.
  std::size_t prepare_object_arenas(std::size_t bytes, std::size_t count) noexcept;
  // Kept arenas that nobody used for so many nanoseconds become free memory, which `trim` gives to the kernel; at most `most`
  // of them. Bytes. 0 while frozen.
  std::size_t free_object_arenas(std::int64_t older_than = 0, std::size_t most = SIZE_MAX) noexcept;
  // A request that something else has to serve.
  void count_object_fallback() noexcept;

  // Recording (trace/recorder.hpp), which must be running. From `begin_recording` on every allocation and free is told to
  // the recorder, what is alive already first. 0 or an errno value. Hits cost some 20 ns more while recorded, nothing otherwise.
  int begin_recording() noexcept;
  void end_recording() noexcept;
  bool recording() const noexcept;
  // Every pool there is, and every one that is made until `record_none`.
  static int record_all() noexcept;
  static void record_none() noexcept;
  // Of a live block while recorded: the number of the place that made it, and its age in the recorder's units; 0: not known.
  std::uint32_t origin(const void* block, std::uint64_t* age) const noexcept;

  // Debugging. Whether the pool has the debug layer.
  bool debug() const noexcept;
  // Live blocks of a debug pool, oldest first. Fills at most `capacity`, returns how many there are (0 for other pools).
  std::size_t outstanding(LiveBlock* blocks, std::size_t capacity) noexcept;
  // How all debug pools learn where they are called from. nullptr: not at all.
  static void set_call_site(CallSite call_site) noexcept;

 private:
  Pool() = default;
  ~Pool() = default;
  friend struct PoolImpl;
};

}  // namespace rtpool::pool
