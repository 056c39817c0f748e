// What a process shows of itself while it runs: a head, pools, sections, in a file that others read through /proc/PID/fd.
//
// A reader adds one to `asked`, wakes who sleeps on it, and waits until `answered` is that number; `sequence` is odd while the
// rest is being written. All numbers are little endian. rtpool/_live/page.py reads the same.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>

#include "pool/pool.hpp"
#include "realtime/sections.hpp"

namespace rtpool::live {

static_assert(std::endian::native == std::endian::little, "the page is read as it lies in memory");

inline constexpr char k_file_name[] = "rtpool-live";
inline constexpr std::uint32_t k_version = 1;
inline constexpr std::size_t k_most_pools = 64;
inline constexpr std::size_t k_most_sections = 32;

struct Head {
  char magic[8];
  std::uint32_t version;
  std::uint32_t bytes;      // of all
  std::atomic<std::uint32_t> asked;
  std::atomic<std::uint32_t> answered;
  std::atomic<std::uint32_t> sequence;
  std::uint32_t process;    // as it knows itself
  std::uint64_t instant;    // CLOCK_MONOTONIC when this was written, ns
  std::uint32_t pools;      // there are; the first k_most_pools are shown
  std::uint32_t sections;   // so
  std::uint32_t pool_bytes;    // of an entry
  std::uint32_t section_bytes;
  std::uint32_t stats_fields;  // of an entry's figures
  std::uint32_t section_fields;
};
static_assert(sizeof(Head) == 64);

enum Flags : std::uint32_t { k_frozen = 1, k_shared = 2, k_debug = 4 };

struct PoolEntry {
  char name[pool::k_name_capacity];
  std::uint64_t id;
  std::uint64_t limit;
  std::uint32_t flags;
  std::uint32_t reserved[3];
  pool::Stats stats;        // 64-bit numbers in the struct's order, which only grows at its end
};
static_assert(sizeof(pool::Stats) % sizeof(std::uint64_t) == 0);

struct Page {
  Head head;
  PoolEntry pools[k_most_pools];
  realtime::SectionFigures sections[k_most_sections];
};

}  // namespace rtpool::live
