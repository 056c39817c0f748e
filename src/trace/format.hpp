// What a trace file is made of. docs/reference/trace-format.md says the same for readers; a change here is a new version.
//
// A file is a row of records: a head of 16 bytes, then its payload. Numbers are little endian; a varint has seven bits a
// byte, the lowest first, with the highest bit set in all but the last. Nothing here fails or speaks to anybody.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace rtpool::trace {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

inline constexpr std::uint32_t k_version = 1;

constexpr std::uint32_t four(const char (&name)[5]) noexcept {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(name[i]);
  return value;
}

inline constexpr std::uint32_t k_meta_record = four("META");     // JSON: what the file is; the first record
inline constexpr std::uint32_t k_names_record = four("NAME");    // items: code, places, stacks, spans, pools, threads
inline constexpr std::uint32_t k_events_record = four("EVTS");   // a chunk of one thread's events
inline constexpr std::uint32_t k_sample_record = four("SAMP");   // the process as the kernel sees it
inline constexpr std::uint32_t k_totals_record = four("TOTL");   // one thread's sums by place
inline constexpr std::uint32_t k_pools_record = four("POOL");    // PoolLife: from when to when addresses were a pool's
inline constexpr std::uint32_t k_end_record = four("ENDS");      // JSON: how the recording ended; the last record

struct RecordHead {
  std::uint32_t kind;
  std::uint32_t bytes;         // of the payload
  std::uint32_t payload_crc;
  std::uint32_t head_crc;      // of the three above
};
static_assert(sizeof(RecordHead) == 16);

// Of one event. Two bits say what it is; what the others mean depends on that.
inline constexpr unsigned k_type_mask = 3;
inline constexpr unsigned k_allocate = 0;
inline constexpr unsigned k_free = 1;
inline constexpr unsigned k_mark = 2;
inline constexpr unsigned k_alive = 3;  // was alive when the recording began

inline constexpr unsigned k_outcome_shift = 2;  // of an allocation: two bits, Outcome
inline constexpr unsigned k_zeroed = 1U << 4;   // of an allocation: asked for as zeros
inline constexpr unsigned k_resize = 1U << 5;   // of an allocation or free: by realloc
inline constexpr unsigned k_same_size = 1U << 6;  // of an allocation: its size is the last one in the slot of its place
inline constexpr unsigned k_remote = 1U << 2;   // of a free: by another thread than the block's heap's; in a shared pool by another process
inline constexpr unsigned k_mark_shift = 2;     // of a mark: four bits, Mark

enum class Outcome : std::uint8_t { hit, miss, fallback, failed };

// Numbers that come with them: the iteration's, the span's, the tick's; for `faults` the thread's minor faults so far.
enum class Mark : std::uint8_t {
  iteration_begin, iteration_end, span_begin, span_end, tick_begin, tick_end, faults,
};

constexpr Outcome outcome_of(const void* block, bool from_pool, bool missed) noexcept {
  return block == nullptr ? Outcome::failed : !from_pool ? Outcome::fallback : missed ? Outcome::miss : Outcome::hit;
}
constexpr unsigned allocation_kind(Outcome outcome, bool zeroed, unsigned how) noexcept {
  return k_allocate | static_cast<unsigned>(outcome) << k_outcome_shift | (zeroed ? k_zeroed : 0) | how;
}

inline constexpr unsigned k_size_slots = 256;  // last sizes kept for k_same_size: by the lowest bits of the place

// In front of a chunk's streams: kinds, times, places, addresses, sizes, in this order.
struct EventsHead {
  std::uint32_t thread;
  std::uint32_t count;
  std::uint64_t first_time;  // what the first event's time is added to
  std::uint64_t last_time;
  std::uint64_t lost;        // events of this thread that found no room, before this chunk
  std::uint32_t bytes[4];    // of times, places, addresses, sizes
  std::uint64_t marks;       // events that are marks
};
static_assert(sizeof(EventsHead) == 56);

struct Sample {
  std::uint64_t ticks;
  std::uint64_t nanoseconds;  // the monotonic clock at the same moment
  std::uint64_t resident_bytes;
  std::uint64_t minor_faults;
  std::uint64_t major_faults;
};
static_assert(sizeof(Sample) == 40);

// A line says the one or the other, 0 what it does not say. Later pools may have the same addresses.
struct PoolLife {
  std::uint64_t number;
  std::uint64_t begun;  // no event of the pool is earlier
  std::uint64_t ended;  // none is later
};
static_assert(sizeof(PoolLife) == 24);

// A place's sums in one thread. What was freed counts by the place that made it.
struct PlaceTotals {
  std::uint64_t calls;
  std::uint64_t bytes;
  std::uint64_t frees;
  std::uint64_t freed_bytes;
  std::uint64_t peak_bytes;  // of bytes - freed_bytes in this thread
  std::uint64_t misses;
  std::uint64_t fallbacks;
  std::uint64_t failures;
  std::uint64_t zeroed;
  std::uint64_t remote_frees;
  std::uint64_t lifetime;    // ticks, summed over what was freed
};
static_assert(sizeof(PlaceTotals) == 88);

// Items of a names record: one of these bytes, then varints and texts (a varint for the length, then UTF-8).
inline constexpr std::uint8_t k_code_item = 1;    // number, first line, file, function
inline constexpr std::uint8_t k_place_item = 2;   // number, code, instruction, line, end line, column + 1, end column + 1
inline constexpr std::uint8_t k_stack_item = 3;   // number, the stack below, place
inline constexpr std::uint8_t k_span_item = 4;    // number, name
inline constexpr std::uint8_t k_pool_item = 5;    // number, begin of its addresses / 16, bytes, capacity, name
inline constexpr std::uint8_t k_thread_item = 6;  // number, the kernel's number
inline constexpr std::uint8_t k_shared_pool_item = 7;  // as k_pool_item: memory that other processes have open, too

inline constexpr std::size_t k_longest_varint = 10;

inline std::uint8_t* put_varint(std::uint8_t* at, std::uint64_t value) noexcept {
  while (value >= 0x80) {
    *at++ = static_cast<std::uint8_t>(value | 0x80);
    value >>= 7;
  }
  *at++ = static_cast<std::uint8_t>(value);
  return at;
}

constexpr std::uint64_t zigzag(std::int64_t value) noexcept {
  return static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63);
}

}  // namespace rtpool::trace
