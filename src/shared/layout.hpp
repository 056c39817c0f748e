// What stands in a shared segment, byte for byte. No pointers: granules, slots and records are numbers.
//
//   header | 256 process slots | one word per granule | records | data: granules
//
// Every word that more than one process may write is one 64-bit atomic, and every change that matters is one store or
// one compare-and-swap on one of them. So there is no instant at which a killed process leaves something half done that
// others could not tell from done or from not begun. The invariants (ids as `check` reports them):
//
//   SH-1  the header is as it was made: magic, version, geometry and check sum
//   SH-2  a granule's word is 0 (free) or names a process slot and the generation (tenancy) that took it; whoever the
//         tenant, a granule changes hands only by a compare-and-swap against the exact word
//   SH-3  a record that is alive lies inside the data and none of its granules is free
//   SH-4  a record is alive as long as one process bit or one ticket is set in it; whoever clears the last one closes it
//   SH-5  a tenancy is never used again: the generation of a slot goes up at each use
//   SH-6  a block in a lent run is free or has a record: no record is made over a run while it is lent
//   SH-7  a released record whose owner lives and has its granules names a block that is that one's and that nobody uses:
//         before granules change hands the records in them are free
//
// Everything here may have been written by a hostile process: readers bound every number before they use it.
// Thread rule: none of its own. Failure: `geometry_of` and `read_header` answer false.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/shared_memory.hpp"

namespace rtpool::shared {

inline constexpr std::uint64_t k_magic = 0x4d534c4f4f505452;  // "RTPOOLSM", lowest byte first
inline constexpr std::uint32_t k_version = 2;
inline constexpr std::size_t k_page = 4096;
inline constexpr unsigned k_processes = 256;
inline constexpr unsigned k_bit_words = k_processes / 64;
inline constexpr unsigned k_tickets = 7;  // processes that may have handles of one block under way at once, by name
inline constexpr std::uint32_t k_most_granules = 65536;
inline constexpr std::uint32_t k_least_records = 256;
inline constexpr std::uint32_t k_most_records = 65536;
inline constexpr std::size_t k_bytes_per_record = 16384;
inline constexpr std::size_t k_largest_data = std::size_t{1} << 46;
inline constexpr std::uint32_t k_none = UINT32_MAX;

using Word = std::atomic<std::uint64_t>;
static_assert(sizeof(Word) == 8 && Word::is_always_lock_free);

// A process's stay in a slot. Packs into 40 bits; generation 0 is nobody.
struct Tenancy {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;

  constexpr bool operator==(const Tenancy&) const = default;
  constexpr explicit operator bool() const noexcept { return generation != 0; }
  constexpr std::uint64_t packed() const noexcept { return slot | std::uint64_t{generation} << 8; }
  static constexpr Tenancy of(std::uint64_t word) noexcept {
    return {static_cast<std::uint32_t>(word & 0xff), static_cast<std::uint32_t>(word >> 8)};
  }
};

// The word of a granule: tenancy in bits 0-39; the first granule of a run also has the run's length in bits 40-57.
struct GranuleWord {
  static constexpr std::uint64_t k_idle = std::uint64_t{1} << 63;     // the run is kept for reuse and may be stolen
  static constexpr std::uint64_t k_stealing = std::uint64_t{1} << 62; // the thief is taking over the rest of the run
  static constexpr std::uint64_t k_lent = std::uint64_t{1} << 61;     // its owner has let go of every block in it
  static constexpr std::uint64_t k_looked_at = std::uint64_t{1} << 60; // lent, and somebody looks whether others have, too
  static constexpr std::uint64_t part(Tenancy t) noexcept { return t.packed(); }
  static constexpr std::uint64_t head(Tenancy t, std::uint32_t length) noexcept {
    return t.packed() | std::uint64_t{length} << 40;
  }
  static constexpr Tenancy tenancy(std::uint64_t word) noexcept { return Tenancy::of(word & 0xff'ffff'ffff); }
  static constexpr std::uint32_t length(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 40) & 0x3ffff;
  }
};

enum class Life : std::uint8_t { free, joining, forking, live, reaping };

// The word of a process slot: state in bits 0-2, pid in bits 3-24, generation in bits 25-56.
struct LifeWord {
  static constexpr std::uint64_t make(Life state, std::int32_t pid, std::uint32_t generation) noexcept {
    return static_cast<std::uint64_t>(state) | (static_cast<std::uint64_t>(static_cast<std::uint32_t>(pid)) & 0x3fffff) << 3 |
           std::uint64_t{generation} << 25;
  }
  static constexpr Life state(std::uint64_t w) noexcept { return static_cast<Life>((w & 7) <= 4 ? w & 7 : 4); }
  static constexpr std::int32_t pid(std::uint64_t w) noexcept { return static_cast<std::int32_t>(w >> 3 & 0x3fffff); }
  static constexpr std::uint32_t generation(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 25); }
};

// What a process tells the others. Only its owner writes it while it is live.
struct alignas(128) ProcessSlot {
  Word life;
  Word start;
  Word image;
  Word namespace_;
  Word parent;         // forking and live: the tenancy whose blocks this process inherited, packed; 0 for none
  Word since;          // seconds
  Word returned;       // blocks of this process that others closed: first record + 1, linked by Record::next
  Word current_bytes;
  Word current_count;
  Word requested_bytes;
  Word reserved[6];
};
static_assert(sizeof(ProcessSlot) == 128);

// free -> setup (by process `version`) -> alive <-> closing -> released (the owner takes the block back) -> free
//                                          alive <- released (another process borrows the block, under a new generation)
enum class RecordState : std::uint8_t { free, setup, alive, closing, released };

// The word of a record: state in bits 0-7, version in bits 8-31 (goes up at each closing), generation in bits 32-63.
struct StateWord {
  static constexpr std::uint64_t make(RecordState s, std::uint32_t version, std::uint32_t generation) noexcept {
    return static_cast<std::uint64_t>(s) | (std::uint64_t{version} & 0xffffff) << 8 | std::uint64_t{generation} << 32;
  }
  static constexpr RecordState state(std::uint64_t w) noexcept {
    return static_cast<RecordState>((w & 0xff) <= 4 ? w & 0xff : 0);
  }
  static constexpr bool valid(std::uint64_t w) noexcept { return (w & 0xff) <= 4; }
  static constexpr std::uint32_t version(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 8) & 0xffffff; }
  static constexpr std::uint32_t generation(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 32); }
};

// Handles of one block under way from one process: count in bits 0-15, slot in 16-23, low half of the generation in
// 24-39, time of the last one (seconds of the segment's age) in 40-63. 0: unused.
struct TicketWord {
  static constexpr std::uint64_t k_anonymous = 0x10000;  // the last word of a record: count 1 of nobody in particular
  static constexpr std::uint64_t make(std::uint32_t count, Tenancy t, std::uint64_t time) noexcept {
    return (count & 0xffff) | std::uint64_t{t.slot & 0xff} << 16 | std::uint64_t{t.generation & 0xffff} << 24 | time << 40;
  }
  static constexpr std::uint32_t count(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w & 0xffff); }
  static constexpr bool of(std::uint64_t w, Tenancy t) noexcept {
    return (w >> 16 & 0xff) == t.slot && (w >> 24 & 0xffff) == (t.generation & 0xffff);
  }
  static constexpr std::uint32_t slot(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 16 & 0xff); }
  static constexpr std::uint32_t low_generation(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 24 & 0xffff); }
  static constexpr std::uint32_t time(std::uint64_t w) noexcept { return static_cast<std::uint32_t>(w >> 40); }
};

// A shared block.
struct alignas(128) Record {
  Word state;
  Word owner;                 // packed tenancy of the process whose memory it is
  Word offset;                // into the data
  Word bytes;
  Word bits[k_bit_words];     // one for each process that holds the block
  Word next;                  // in the owner's list of returned blocks: record + 1
  Word tickets[k_tickets];
};
static_assert(sizeof(Record) == 128);

// The part of the header that never changes.
struct MadeHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t page;          // of the file: 4096, or that of explicit huge pages
  os::SegmentId id;
  std::uint64_t data_bytes;
  std::uint64_t file_bytes;
  std::uint64_t created;       // seconds
  char name[os::k_segment_name_length + 8];  // empty: nameless
  std::uint64_t check_sum;     // of everything above
};

struct Header {
  MadeHeader made;
  alignas(128) Word recovery;  // the tenancy that recovers right now, packed; 0 for nobody
  Word creator;                // tenancy of the process that made it; 0 once that one closed it in order
  Word recovered_processes;
  Word recovered_blocks;
  Word lost_tickets;
};
static_assert(sizeof(Header) <= k_page);

// Follows from the size alone, so a segment cannot lie about it.
struct Geometry {
  std::uint64_t data_bytes = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t data_offset = 0;
  std::uint64_t processes_offset = 0;
  std::uint64_t granules_offset = 0;
  std::uint64_t records_offset = 0;
  std::uint32_t granule_shift = 0;
  std::uint32_t granules = 0;
  std::uint32_t records = 0;

  std::uint64_t granule_bytes() const noexcept { return std::uint64_t{1} << granule_shift; }
};

// `size` is rounded up to whole granules; `page` is a power of two from 4096 to 1 GiB. False: out of range.
bool geometry_of(std::uint64_t size, std::uint64_t page, Geometry* out) noexcept;

void write_header(MadeHeader* header, const Geometry& geometry, std::uint32_t page, const os::SegmentId& id, const char* name,
                  std::uint64_t created) noexcept;

// SH-1. Copies what is trusted from then on; false when the header is not that of a segment of `file_bytes`.
bool read_header(const MadeHeader* header, std::size_t file_bytes, MadeHeader* copy, Geometry* geometry) noexcept;

// Whether the header in the segment still is as `copy` was read.
bool same_header(const MadeHeader* header, const MadeHeader& copy) noexcept;

}  // namespace rtpool::shared
