// The recorder: takes events from the threads that allocate, adds time and place, and writes them to a file.
//
// There is one, and at most one recording at a time. Pools that are recorded call `allocated` and `freeing`; all others
// do not know it exists. Each thread writes into a chunk of its own; full chunks go through a lock-free list to the writer, a
// thread that looks every few milliseconds, so that nobody wakes it. Only where no chunk is free the thread itself writes,
// unless it may not enter the kernel (a frozen pool): then the event is counted as lost.
//
// Modes: `events` writes until the file is as long as it may be, then counts what is lost. `ring` keeps the last so many
// bytes of events in memory and writes them when it ends. `totals` keeps sums by place.
//
//   RC-1  every chunk is written at most once, and what a thread lost is in its next chunk's head or in the end record
//   RC-2  after `stop` has returned no thread is inside the recorder or will touch its memory
//
// Thread rule: events from any thread, with or without anything of Python; start, stop and fork functions one at a time.
// Cost of an event: some 20 ns and what asking for the place takes; no lock, and no kernel call unless no chunk is free.
// Failure: start returns an errno value; afterwards what fails is counted and said in the end record.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"
#include "os/helper_thread.hpp"
#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "os/ticks.hpp"
#include "trace/chunk_store.hpp"
#include "trace/origins.hpp"
#include "trace/stream.hpp"

namespace rtpool::trace {

enum class Mode : std::uint8_t { events, totals, ring };

// The number of the place where the calling thread stands; 0: it cannot say. Below k_most_places. Called with none of
// the recorder's locks held, but inside the recorder: it must not allocate from a pool.
using WhereAmI = std::uint32_t (*)(bool allocates) noexcept;

struct RecorderOptions {
  Mode mode = Mode::events;
  int file = -1;                 // taken over, also on failure
  std::uint64_t limit = 0;       // bytes of events; 0: none
  std::size_t buffer = std::size_t{8} << 20;  // bytes of chunks made ready
  WhereAmI where = nullptr;
  std::uint32_t poll_ms = 10;    // how often the writer looks
};

// A block's end as its pool saw it. What is told later keeps its time and who made the block.
struct BlockEnd {
  std::uint64_t recording;  // of which it is an event; no other's
  const void* block;
  std::size_t size;
  std::uint64_t time;
  std::uint64_t origin;
  unsigned kind;   // k_free with its bits
  bool elsewhere;  // this process was told of it: no place of its own is to blame
};

// How a trace names a pool: which addresses are its own, and what it held when recording began.
struct PoolName {
  std::uint64_t number;  // no other pool's of the process
  const void* first;
  std::uint64_t bytes;
  std::uint64_t capacity;
  const char* name;
};

// How it went. The figures are final once stopped.
struct RecorderReport {
  std::uint64_t events = 0;
  std::uint64_t lost_no_room = 0;   // no chunk was free and the kernel not allowed
  std::uint64_t lost_by_limit = 0;  // the file was full
  std::uint64_t dropped_old = 0;    // ring: overwritten by later ones
  std::uint64_t bytes = 0;          // of the file
  int write_error = 0;
};

class Recorder {
 public:
  // `meta`: JSON, written as the first record.
  int start(const RecorderOptions& options, const char* meta, std::size_t meta_bytes, os::Memory& memory = os::memory()) noexcept;
  // No event is taken from here on, and no thread is inside. Sums and what the ring has are written. Then `finish`.
  void stop() noexcept;
  // `end`: JSON, written as the last record; the file is closed.
  void finish(const char* end, std::size_t end_bytes) noexcept;
  RecorderReport report() noexcept;

  bool running() const noexcept { return state_.load(std::memory_order_acquire) == State::running; }
  Mode mode() const noexcept { return options_.mode; }
  // Of the present recording, from 1; never used again.
  std::uint64_t number() const noexcept { return number_.load(std::memory_order_relaxed); }
  bool counts_ticks() const noexcept { return ticks_.is_counter(); }
  std::uint64_t now() const noexcept { return ticks_.now() >> k_time_shift; }
  // Not before the block was had, which another thread may have freed, or made, just now: if there is another one, its stream
  // was there before that.
  std::uint64_t now_after() const noexcept {
    const bool alone = thread_count_.load(std::memory_order_relaxed) == 1;
    return (alone ? ticks_.now() : ticks_.now_after()) >> k_time_shift;
  }
  // For sums: as the writer read it last. One that is read at a block's begin and at its end is as often too early as too
  // late, so that the mean of many lives is right although each is counted in steps.
  std::uint64_t coarse_now() const noexcept { return coarse_.load(std::memory_order_relaxed); }
  static constexpr unsigned k_time_shift = 3;

  // `kind`: a k_allocate with its bits. `recording`: the number of that which the block was had in; in a later one it is among the
  // live blocks. `may_wait`: may enter the kernel. `origins` may be nullptr.
  void allocated(std::uint64_t recording, Origins* origins, const void* block, std::size_t size, unsigned kind, bool may_wait) noexcept;
  // A block that was alive when its pool began to be recorded, at `time`. A word of an earlier recording is wiped out.
  void alive(Origins* origins, const void* block, std::size_t size, std::uint64_t time) noexcept;
  // Before the block is given back, so that its next life begins after this one ends.
  void freeing(const Origins* origins, const void* block, std::size_t size, unsigned kind, bool may_wait) noexcept {
    ended(end_of(origins, block, size, kind), may_wait);
  }
  // The same in two steps, for pools that give blocks back under a lock: `end_of` takes none, `ended` may. An end that is not told
  // yet when the recording ends is left out; another thread may have been heard to make a block of that memory by then.
  BlockEnd end_of(const Origins* origins, const void* block, std::size_t size, unsigned kind) const noexcept {
    const bool sums = sums_.load(std::memory_order_relaxed);
    return {number(), block, size, sums ? coarse_now() : now_after(), sums && origins != nullptr ? origins->get(block, size) : 0, kind, false};
  }
  void ended(const BlockEnd& end, bool may_wait) noexcept;
  // Events that could not even be noted.
  void lose(std::uint64_t events) noexcept { lost_outside_.fetch_add(events, std::memory_order_relaxed); }
  void mark(Mark mark, std::uint64_t number, bool may_wait) noexcept;

  // Items of a names record. False: no room; they are lost. `may_wait` as above.
  bool add_names(const std::uint8_t* items, std::size_t bytes, bool may_wait) noexcept;
  // Which addresses are a pool's, before its first event; and that they are so no more, after its last. `item`: k_pool_item or
  // k_shared_pool_item. May enter the kernel.
  void pool_begins(std::uint8_t item, const PoolName& pool) noexcept;
  void pool_ends(std::uint64_t number) noexcept { add_life({number, 0, now_after()}); }

  // Fork: nothing is under way in between. The child has no recording.
  void stop_for_fork() noexcept;
  void resume_after_fork() noexcept;
  void forget_in_child() noexcept;

 private:
  enum class State : std::uint32_t { idle, running, stopping };
  class Visit;
  static constexpr std::size_t k_names_bytes = std::size_t{1} << 20;
  static constexpr std::size_t k_lives = 128;
  static constexpr std::uint32_t k_most_streams = 16384;
  static constexpr std::uint32_t k_ready_streams = 32;
  static constexpr std::uint32_t k_totals_places = std::uint32_t{1} << 17;  // further ones count as nowhere
  static constexpr std::uint32_t k_totals_step = 4096;  // places that are made resident at once
  static constexpr unsigned k_ready_totals = 8;         // streams that have sums from the start
  static constexpr std::size_t k_totals_bytes = k_totals_places * sizeof(PlaceTotals);

  Stream* stream(bool may_wait) noexcept;
  Stream* make_stream(bool may_wait) noexcept;
  static void thread_ends(void* stream) noexcept;
  bool make_room(Stream& stream, std::uint64_t time, bool may_wait) noexcept;
  void count_allocation(Stream& stream, std::uint32_t place, std::size_t size, unsigned kind, bool may_wait) noexcept;
  void count_end(Stream& stream, const BlockEnd& end, bool may_wait) noexcept;
  bool begin_chunk(Stream& stream, std::uint64_t time, bool may_wait) noexcept;
  void await_threads() noexcept;
  PlaceTotals* totals(Stream& stream, std::uint32_t place, bool may_wait) noexcept;
  bool make_totals(Stream& stream) noexcept;
  void make_totals_ready(Stream& stream, std::uint32_t places) noexcept;

  // writer.cpp
  static void writer_main(void* self) noexcept;
  os::Nanoseconds next_step() noexcept;
  void write_out(bool last) noexcept;  // takes writer_lock_
  void write_chunk(const Chunk& chunk) noexcept;
  void keep_in_ring(Chunk& chunk) noexcept;
  void write_ring() noexcept;
  void write_totals() noexcept;
  void write_sample() noexcept;
  void write_names() noexcept;
  void add_life(const PoolLife& life) noexcept;
  bool write_record(std::uint32_t kind, const void* payload, std::size_t bytes) noexcept;

  std::atomic<State> state_{State::idle};
  std::atomic<std::uint64_t> number_{0};
  // Read by threads that look in between two recordings as well.
  bool symmetric() const noexcept { return symmetric_.load(std::memory_order_relaxed); }

  std::atomic<bool> symmetric_{false};  // no process barrier: threads pay a fence
  std::atomic<bool> sums_{false};       // the mode, for those who ask outside of a visit
  os::Ticks ticks_;
  RecorderOptions options_;
  os::Memory* memory_ = nullptr;
  ChunkStore chunks_;

  os::PriorityLock stream_lock_;
  std::atomic<std::uint32_t> stream_count_{0};
  std::atomic<std::uint32_t> thread_count_{0};
  Stream* idle_streams_ = nullptr;
  std::atomic<Stream*> streams_[k_most_streams]{};
  std::atomic<std::uint64_t> lost_outside_{0};  // events that came to no stream

  os::PriorityLock names_lock_;
  std::uint8_t* names_[2] = {nullptr, nullptr};  // one is filled while the other is written
  unsigned names_now_ = 0;
  std::size_t names_used_ = 0;
  PoolLife lives_[k_lives]{};  // to be written with the names
  std::size_t lives_used_ = 0;

  os::PriorityLock writer_lock_;
  os::HelperThread writer_;
  std::atomic<bool> writer_ends_{false};
  std::uint64_t step_state_ = 1;
  alignas(64) std::atomic<std::uint64_t> coarse_{0};
  Chunk* ring_first_ = nullptr;
  Chunk* ring_last_ = nullptr;
  std::uint64_t ring_bytes_ = 0;
  bool full_ = false;  // the file is as long as it may be
  RecorderReport report_;
};

// Never destroyed.
Recorder& recorder() noexcept;

}  // namespace rtpool::trace
