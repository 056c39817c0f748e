// The pool in shared memory: what the NumPy binding and C++ callers use.
//
// Any process of the user may join. Each takes memory for itself and shares blocks of it with the others by name
// (`BlockRef`); a block is free again when the last process has dropped it, whoever made it and in whatever order they
// end. A process that is killed holds no lock the others need, and what it held comes back (shared/recovery.hpp).
//
// Thread rule: every function may be called by any thread of any process that joined, also without Python state.
// No function throws. Cost: `allocate` and `release` of sizes seen before take one uncontended lock and at most one
// atomic operation on the segment; misses are O(granules). Only a pool that is full asks about the life of others, looks at
// every record, and waits for another process that does so just now, 0.1 s at most.
// Fork: the child joins by itself. What lived in the parent at the fork keeps its contents as long as the child lives:
// the parent does not use that memory again before.
#pragma once

#include "os/priority_lock.hpp"
#include "pool/pool.hpp"
#include "pool/fallback_table.hpp"
#include "shared/heap.hpp"
#include "shared/recovery.hpp"
#include "trace/origins.hpp"

namespace rtpool::shared {

struct Options {
  std::uint64_t size = 0;                                 // create only
  char name[os::k_segment_name_length + 8] = {};          // empty: nameless
  bool prefault = true;
  bool lock = false;
  pool::HugePages huge_pages = pool::HugePages::transparent;
  bool fall_back = false;                                 // when full: libc's allocator; else nullptr
  bool strict = false;
};

// Where an open pool, nameless or not, may be found: its id, and a process that had it open with the descriptor there.
struct Address {
  os::SegmentId id;
  std::int32_t pid = 0;
  std::int32_t fd = -1;
};

class SharedPool;

struct CreateResult {
  SharedPool* pool = nullptr;  // nullptr on failure
  pool::Step step = pool::Step::none;
  int error = 0;  // EEXIST: the name is in use; EBADMSG: no intact segment; EACCES: others may write it, or who has it
                  // open may not be looked at; ENOSPC: no slot
  std::size_t asked = 0;
  std::size_t got = 0;
};

// Besides what a private pool counts. `common.current_*` are those of all processes; hits, misses, totals, peaks,
// fallbacks and failures those of this one. `remote_frees`: blocks of this process that others freed.
struct Stats {
  pool::Stats common;
  std::uint64_t processes = 0;            // that have joined and live
  std::uint64_t shared_count = 0;         // blocks that are shared now
  std::uint64_t in_flight_count = 0;      // handles under way
  std::uint64_t recovered_processes = 0;  // slots given back, also those of processes that left in order
  std::uint64_t own_bytes = 0;            // of common.current_bytes, this process's
  std::uint64_t own_count = 0;
};

class SharedPool {
 public:
  // A pool with one reference. A name left behind by processes that are all dead is taken over.
  static CreateResult create(const Options& options, os::SharedMemory& os = os::shared_memory(),
                             const pool::Fallback* fallback = nullptr) noexcept;
  // Joins a pool. If this process has it open already, that object, with one more reference.
  static CreateResult attach_name(const Options& options, os::SharedMemory& os = os::shared_memory(),
                                  const pool::Fallback* fallback = nullptr) noexcept;
  static CreateResult attach_address(const Address& address, const Options& options,
                                     os::SharedMemory& os = os::shared_memory(),
                                     const pool::Fallback* fallback = nullptr) noexcept;
  // Takes over `fd`, also on failure.
  static CreateResult attach_fd(int fd, const Options& options, os::SharedMemory& os = os::shared_memory(),
                                const pool::Fallback* fallback = nullptr) noexcept;
  // The open pool of that id, with one more reference, or nullptr.
  static SharedPool* find(const os::SegmentId& id) noexcept;
  // The open pool whose memory holds the address, without a reference, or nullptr.
  static SharedPool* find(const void* address) noexcept;
  // Whose memory, tables included, the address is in: its name ("" without one) and whether it lies in the tables. False if
  // no open pool's. For reports; O(open pools).
  static bool locate(const void* address, char* name, std::size_t capacity, bool* tables) noexcept;
  // As `find`, for a block that is alive: takes no lock and looks at writable memory only.
  static SharedPool* find_block(const void* address) noexcept;
  // The open pool whose fallback served the live block, or nullptr.
  static SharedPool* find_fallback_block(const void* address) noexcept;

  // The last reference dropped leaves the pool and unmaps it: no address in it may be used after. References stand for
  // Python objects, capsules (one for each array NumPy made in it) and opened blocks.
  void add_reference() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void drop_reference() noexcept;
  // Ends one creation or attachment. After the last one nothing is allocated any more in this process; what is there
  // stays. Also tells the others that an end of this process is in order.
  void close() noexcept;
  bool closed() const noexcept { return openers_.load(std::memory_order_relaxed) == 0; }
  // Removes the name; those who have the pool open keep it. ENOENT: it has none any more, EINVAL: it never had one.
  int unlink() noexcept;

  void* allocate(std::size_t size) noexcept;
  void* allocate_zeroed(std::size_t size) noexcept;
  void* resize(void* block, std::size_t size) noexcept;
  void release(void* block) noexcept;
  bool contains(const void* address) const noexcept;
  std::size_t usable_size(const void* block) noexcept;

  // What a hold belongs to: after a fork, holds taken before it are the parent's and mean nothing in the child.
  std::uint32_t lineage() const noexcept { return lineage_; }

  // Shares the block around `address` and holds it; `range` is where it lies. EINVAL: no live block of this process
  // there. ENOSPC: no record free.
  int share(const void* address, BlockRef* ref, BlockRange* range) noexcept;
  // One hold more. ESTALE: the block is not there any more.
  int hold(const BlockRef& ref, BlockRange* range) noexcept;
  // One hold less; of an earlier lineage: nothing.
  void drop(const BlockRef& ref, std::uint32_t lineage) noexcept;
  // A handle goes under way to another process: until it arrives (`arrive`) it keeps the block. The caller holds it.
  int depart(const BlockRef& ref, Tenancy* sender) noexcept;
  // A handle has arrived: holds the block and ends what `depart` began.
  int arrive(const BlockRef& ref, Tenancy sender, BlockRange* range) noexcept;
  // Ends handles under way for at least `seconds`. Returns how many.
  std::uint64_t reclaim(std::uint32_t seconds) noexcept;

  char* data() const noexcept { return segment_.data(); }
  // The data through a mapping that cannot be written; errno value in `error` when there is none.
  const char* read_only_data(int* error) noexcept;
  Address address() const noexcept { return {segment_.made().id, segment_.os().process_id(), segment_.fd()}; }
  int fd() const noexcept { return segment_.fd(); }
  const char* name() const noexcept { return segment_.made().name; }
  const Geometry& geometry() const noexcept { return segment_.geometry(); }
  const Options& options() const noexcept { return options_; }
  const pool::Effective& effective() const noexcept { return effective_; }
  Tenancy tenancy() const noexcept { return tenancy_; }
  Segment& segment() noexcept { return segment_; }

  // Every shared pool that this process has open; none is opened or closed meanwhile.
  template <class Function>
  static void for_each(Function&& function) noexcept {
    visit_all([](SharedPool& pool, void* context) noexcept { (*static_cast<std::remove_reference_t<Function>*>(context))(pool); }, &function);
  }

  // Where the open pools have no memory behind their data, at least 2 MiB in a row, in each view of it that this process has; how
  // many, at most `capacity`. For who is about to make all memory of the process resident.
  static std::size_t absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept;

  // O(records that were ever used + granules + processes); a kernel call for each process, and two.
  Stats stats() noexcept;
  void reset_peak() noexcept;
  // Recovers, then gives this process's unused memory back to the pool and, in a nameless pool of small pages, the pool's
  // free memory to the kernel in whole 2 MiB; the bytes that went to the kernel. Live blocks keep their contents.
  std::size_t trim() noexcept;
  bool recover() noexcept;
  // Walks the segment and this process's heap. Other processes may go on meanwhile.
  pool::CheckResult check() noexcept;

  // Recording, as of private pools (pool/pool.hpp): what this process makes and frees. A block that others hold ends when its
  // memory is free again; where another process has freed it, as soon as this one knows.
  int begin_recording() noexcept;
  void end_recording() noexcept;
  bool recording() noexcept { return recording_now() != 0; }
  static int record_all() noexcept;
  static void record_none() noexcept;
  std::uint32_t origin(const void* block, std::uint64_t* age) noexcept;

  // Called around fork by handlers this class installs.
  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;
  static void after_fork_in_child() noexcept;

 private:
  class Section;
  struct Taken {
    std::uint64_t offset = k_no_block;
    bool missed = false;
    std::uint64_t recording = 0;
  };
  struct AddressStretch {  // offsets in the data
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  struct Hold {
    std::uint32_t generation;
    std::uint32_t count;
    std::uint64_t block;  // offset + 1 of this process's own block or one that it borrows, 0 for another's
    bool pinned;
    bool array;  // this process made the block and has not freed it: one of `count` is that
  };
  struct Deferred {
    std::uint64_t offset;  // k_no_block: a hold of `ref`
    BlockRef ref;
  };

  SharedPool(const Segment& segment, const Options& options, const pool::Fallback* fallback) noexcept;
  ~SharedPool() = default;
  static CreateResult finish(Segment& segment, const Options& options, const pool::Fallback* fallback, bool created) noexcept;
  static CreateResult enter(Segment& segment, const Options& options, const pool::Fallback* fallback, bool created) noexcept;
  static void visit_all(void (*visit)(SharedPool& pool, void* context) noexcept, void* context) noexcept;
  static bool take_over_name(os::SharedMemory& os, const char* name) noexcept;
  static bool remove_if_dead(os::SharedMemory& os, const char* name, bool only_after_death) noexcept;
  static bool names_this(os::SharedMemory& os, const char* name, const Segment& segment) noexcept;
  static void sweep_names(os::SharedMemory& os) noexcept;
  CreateResult begin(bool created) noexcept;
  void settle(bool created, CreateResult* result) noexcept;
  void close_in_order() noexcept;
  void unlink_if_abandoned() noexcept;
  void leave() noexcept;
  void destroy() noexcept;
  bool add_reference_if_any() noexcept;
  void become_child(Tenancy tenancy) noexcept;

  bool ready() noexcept { return heap_ != nullptr || reborn(); }
  bool reborn() noexcept;
  Taken take(std::uint64_t size) noexcept;
  std::uint64_t refill(std::uint64_t size) noexcept;
  Taken refill_from_others(std::uint64_t size) noexcept;
  Taken search_others(std::uint64_t size, bool* refused) noexcept;
  std::uint64_t borrow(std::uint64_t size, std::uint64_t most) noexcept;
  void* allocate_as(std::size_t size, bool zeroed, unsigned how) noexcept;
  void* fall_back(std::size_t size, bool zeroed) noexcept;
  void* resize_fallback(void* address, std::size_t size) noexcept;
  void release_as(void* address, unsigned how) noexcept;
  void publish_counts() noexcept;
  Block unless_freed(Block block) const noexcept;
  Block own_block(std::uint64_t offset) const noexcept;
  void release_other(void* address, std::uint64_t offset) noexcept;
  void end_block(Block block, std::uint64_t offset) noexcept;
  void free_block(Block block) noexcept;
  int hold_locked(const BlockRef& ref, BlockRange* range) noexcept;
  void drop_hold(const BlockRef& ref) noexcept;
  bool defer(const Deferred& deferred) noexcept;
  void flush_deferred() noexcept;
  Block block_of(const Hold& hold, std::uint32_t record) const noexcept;
  void forget_earlier(const BlockRef& ref) noexcept;
  void take_back(const BlockRef& ref) noexcept;
  void take_back_elsewhere(const BlockRef& ref) noexcept;
  static void take_back_returned(void* self, BlockRef ref) noexcept;
  void take_back_all_closed() noexcept;
  Block inherited(std::uint64_t offset, BlockRange* range) const noexcept;
  int share_inherited(const Block& block, const BlockRange& range, BlockRef* ref) noexcept;
  void misuse(const void* block, const char* what) noexcept;

  // shared_pool_recording.cpp
  void note_allocation(std::uint64_t recording, const void* block, std::size_t size, bool zeroed, bool missed, unsigned how) noexcept;
  std::uint64_t recording_now() noexcept;
  void note_end(const void* block, std::size_t size, unsigned how) noexcept;
  void watch_ends() noexcept;
  void tell_what_is_left() noexcept;
  void join_recording() noexcept;
  void prepare_origins() noexcept;
  AddressStretch next_small_stretch(std::uint32_t* from, std::size_t* room) noexcept;
  static void forget_recordings() noexcept;  // in a forked child
  static void prepare_for_section() noexcept;
  template <class Function>
  static void for_each_held(Function&& function) noexcept;

  std::atomic<std::uint64_t> references_{1};
  std::atomic<std::uint32_t> openers_{1};  // creations and attachments not closed yet
  os::PriorityLock mutex_;
  Segment segment_;
  Processes processes_;
  Granules granules_;
  Records records_;
  Recovery recovery_;
  Options options_;
  pool::Fallback fallback_;
  pool::FallbackTable fallback_table_;
  pool::Effective effective_;
  Tenancy tenancy_;
  Heap* heap_ = nullptr;
  Heap* inherited_heap_ = nullptr;  // what the parent had at the fork; read only
  Hold* holds_ = nullptr;           // one for each record
  std::uint32_t lineage_ = 1;
  Tenancy fork_child_;              // between before_fork and after
  bool has_children_ = false;
  Deferred* deferred_ = nullptr;
  std::size_t deferred_count_ = 0;
  std::size_t deferred_room_ = 0;
  std::uint32_t futile_ = 0;        // full searches that found nothing, in a row
  std::uint32_t skip_ = 0;
  std::atomic<std::uint64_t> misses_{0};
  std::atomic<std::uint64_t> fallbacks_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> misuses_{0};
  std::atomic<std::uint64_t> kernel_calls_{0};
  std::atomic<std::uint64_t> given_back_{0};  // bytes, to the kernel
  std::uint64_t returned_ = 0;
  std::uint64_t recording_ = 0;     // the recording's number, 0: none; under mutex_
  Section* section_ = nullptr;      // of the thread that holds mutex_
  std::uint64_t traced_as_ = 0;     // its number in that recording
  trace::Origins origins_;
  SharedPool* next_ = nullptr;      // in the registry
  friend struct Registry;
};

}  // namespace rtpool::shared
