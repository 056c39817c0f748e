// The events of one thread, a few thousand at a time, in columns: what a thread writes and the writer takes to the file.
//
//   CH-1  kinds has `count` bytes; each other column ends where the next value goes, with room for one more in all of them
//   CH-2  a chunk is in one hand at a time: free list, a thread's stream, full list, writer
//
// Thread rule: whoever holds the chunk. Cost: `put` a few ns. `put` does not fail: `full` says when the chunk must go.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/bits.hpp"
#include "trace/format.hpp"

namespace rtpool::trace {

inline constexpr std::uint32_t k_chunk_events = 4096;

struct Chunk {
  enum Column : unsigned { k_times, k_places, k_addresses, k_sizes, k_columns };
  static constexpr std::uint32_t k_capacity[k_columns] = {12288, 8192, 14336, 12288};

  std::atomic<std::uint32_t> next{0};  // in a list: index + 1
  EventsHead head{};
  std::uint8_t kinds[k_chunk_events];
  std::uint8_t times[k_capacity[k_times]];
  std::uint8_t places[k_capacity[k_places]];
  std::uint8_t addresses[k_capacity[k_addresses]];
  std::uint8_t sizes[k_capacity[k_sizes]];

  const std::uint8_t* column(unsigned i) const noexcept {
    const std::uint8_t* const columns[k_columns] = {times, places, addresses, sizes};
    return columns[i];
  }
  std::size_t payload_bytes() const noexcept {
    std::size_t bytes = sizeof(EventsHead) + head.count;
    for (const std::uint32_t column_bytes : head.bytes) bytes += column_bytes;
    return bytes;
  }
};

// Writes events into a chunk. One event has a time, and by its kind a place, an address and a size.
class Encoder {
 public:
  bool has_chunk() const noexcept { return chunk_ != nullptr; }
  Chunk* chunk() const noexcept { return chunk_; }
  std::uint64_t last_time() const noexcept { return last_time_; }

  void begin(Chunk& chunk, std::uint32_t thread, std::uint64_t time, std::uint64_t lost) noexcept {
    chunk_ = &chunk;
    chunk.head = EventsHead{};
    chunk.head.thread = thread;
    chunk.head.first_time = last_time_ = time;
    chunk.head.lost = lost;
    last_address_ = 0;
    count_ = 0;
    times_ = chunk.times;
    places_ = chunk.places;
    addresses_ = chunk.addresses;
    sizes_ = chunk.sizes;
    std::memset(slots_, 0, sizeof slots_);
  }
  // Completes the head; the chunk is no longer this encoder's.
  Chunk& finish() noexcept {
    Chunk& chunk = *chunk_;
    chunk.head.count = count_;
    chunk.head.last_time = last_time_;
    chunk.head.bytes[Chunk::k_times] = static_cast<std::uint32_t>(times_ - chunk.times);
    chunk.head.bytes[Chunk::k_places] = static_cast<std::uint32_t>(places_ - chunk.places);
    chunk.head.bytes[Chunk::k_addresses] = static_cast<std::uint32_t>(addresses_ - chunk.addresses);
    chunk.head.bytes[Chunk::k_sizes] = static_cast<std::uint32_t>(sizes_ - chunk.sizes);
    chunk_ = nullptr;
    return chunk;
  }
  std::uint32_t count() const noexcept { return count_; }
  bool full() const noexcept {
    const Chunk& chunk = *chunk_;
    return count_ == k_chunk_events || ends(times_, chunk.times, Chunk::k_times) || ends(places_, chunk.places, Chunk::k_places) ||
           ends(addresses_, chunk.addresses, Chunk::k_addresses) || ends(sizes_, chunk.sizes, Chunk::k_sizes);
  }

  void put_block(unsigned kind, std::uint64_t time, std::uint32_t place, const void* address, std::uint64_t size) noexcept {
    const unsigned type = kind & k_type_mask;
    if (type == k_allocate) {
      std::uint64_t& slot = slots_[place % k_size_slots];
      if (slot == size) {
        kind |= k_same_size;
      } else {
        slot = size;
        sizes_ = put_varint(sizes_, size);
      }
    } else if (type == k_alive) {
      sizes_ = put_varint(sizes_, size);
    }
    if (type != k_alive) places_ = put_varint(places_, place);
    if (address != nullptr) {
      const auto number = reinterpret_cast<std::uintptr_t>(address) / 16;
      addresses_ = put_varint(addresses_, zigzag(static_cast<std::int64_t>(number - last_address_)));
      last_address_ = number;
    }
    put_kind(kind, time);
  }
  void put_mark(Mark mark, std::uint64_t time, std::uint64_t number) noexcept {
    sizes_ = put_varint(sizes_, number);
    ++chunk_->head.marks;
    put_kind(k_mark | static_cast<unsigned>(mark) << k_mark_shift, time);
  }

 private:
  static bool ends(const std::uint8_t* at, const std::uint8_t* begin, unsigned column) noexcept {
    return static_cast<std::size_t>(at - begin) + k_longest_varint > Chunk::k_capacity[column];
  }
  void put_kind(unsigned kind, std::uint64_t time) noexcept {
    if (time < last_time_) time = last_time_;
    times_ = put_varint(times_, time - last_time_);
    last_time_ = time;
    chunk_->kinds[count_++] = static_cast<std::uint8_t>(kind);
  }

  Chunk* chunk_ = nullptr;
  std::uint8_t* times_ = nullptr;
  std::uint8_t* places_ = nullptr;
  std::uint8_t* addresses_ = nullptr;
  std::uint8_t* sizes_ = nullptr;
  std::uint64_t last_time_ = 0;
  std::uint64_t last_address_ = 0;
  std::uint32_t count_ = 0;
  std::uint64_t slots_[k_size_slots];
};

}  // namespace rtpool::trace
