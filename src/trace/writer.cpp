// What the recorder writes, and the thread that does it.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/crc32.hpp"
#include "os/clock.hpp"
#include "os/output_file.hpp"
#include "os/process_sample.hpp"
#include "trace/recorder.hpp"

namespace rtpool::trace {
namespace {

constexpr os::Nanoseconds k_sample_pace = 50'000'000;
constexpr os::Nanoseconds k_longest_sleep = 10'000'000;  // whoever stops the recording waits for it
constexpr std::size_t k_most_pieces = 2 + 1 + Chunk::k_columns;
// Between two looks at the clock for sums: at random, so that a loop of the same period is not always met at the same point.
constexpr os::Nanoseconds k_shortest_step = 1'000'000;
constexpr os::Nanoseconds k_step_spread = 4'000'000;

}  // namespace

os::Nanoseconds Recorder::next_step() noexcept {
  step_state_ = step_state_ * 6364136223846793005ULL + 1442695040888963407ULL;
  return k_shortest_step + static_cast<os::Nanoseconds>((step_state_ >> 33) % static_cast<std::uint64_t>(k_step_spread));
}

void Recorder::writer_main(void* value) noexcept {
  auto& self = *static_cast<Recorder*>(value);
  os::Nanoseconds sampled = os::clock().now();
  const os::Nanoseconds pace = os::Nanoseconds{self.options_.poll_ms} * 1'000'000;
  const bool sums = self.options_.mode == Mode::totals;
  const auto ends = [&] { return self.writer_ends_.load(std::memory_order_acquire); };
  while (!ends()) {
    const os::Nanoseconds next = os::clock().now() + pace;
    for (os::Nanoseconds now = next - pace; now < next && !ends(); now = os::clock().now()) {
      (void)os::clock().sleep_until(std::min(next, now + (sums ? self.next_step() : k_longest_sleep)));
      if (sums) self.coarse_.store(self.now(), std::memory_order_relaxed);
    }
    self.write_out(false);
    // What the ring keeps is not free: a thread that may not enter the kernel needs chunks all the same.
    if (self.options_.mode == Mode::ring && self.chunks_.free_count() < ChunkStore::k_slab_chunks) (void)self.chunks_.add_slab(*self.memory_);
    if (const os::Nanoseconds now = os::clock().now(); now - sampled >= k_sample_pace) {
      sampled = now;
      const std::lock_guard guard(self.writer_lock_);
      self.write_sample();
    }
  }
}

bool Recorder::write_record(std::uint32_t kind, const void* payload, std::size_t bytes) noexcept {
  if (report_.write_error != 0 || options_.file < 0) return false;
  RecordHead head{kind, static_cast<std::uint32_t>(bytes), base::crc32(payload, bytes), 0};
  head.head_crc = base::crc32(&head, sizeof head - sizeof head.head_crc);
  const os::Piece pieces[] = {{&head, sizeof head}, {payload, bytes}};
  report_.write_error = os::write_pieces(options_.file, pieces, 2);
  report_.bytes += sizeof head + bytes;
  return report_.write_error == 0;
}

void Recorder::write_chunk(const Chunk& chunk) noexcept {
  const std::size_t bytes = chunk.payload_bytes();
  full_ |= options_.limit != 0 && report_.bytes + bytes > options_.limit;
  if (full_ || report_.write_error != 0) {
    report_.lost_by_limit += chunk.head.count;
    return;
  }
  os::Piece pieces[k_most_pieces];
  RecordHead head{k_events_record, static_cast<std::uint32_t>(bytes), base::crc32(&chunk.head, sizeof chunk.head), 0};
  pieces[1] = {&chunk.head, sizeof chunk.head};
  pieces[2] = {chunk.kinds, chunk.head.count};
  head.payload_crc = base::crc32(chunk.kinds, chunk.head.count, head.payload_crc);
  for (unsigned i = 0; i < Chunk::k_columns; ++i) {
    pieces[3 + i] = {chunk.column(i), chunk.head.bytes[i]};
    head.payload_crc = base::crc32(chunk.column(i), chunk.head.bytes[i], head.payload_crc);
  }
  head.head_crc = base::crc32(&head, sizeof head - sizeof head.head_crc);
  pieces[0] = {&head, sizeof head};
  report_.write_error = os::write_pieces(options_.file, pieces, k_most_pieces);
  report_.bytes += sizeof head + bytes;
  report_.events += chunk.head.count;
}

void Recorder::write_out(bool last) noexcept {
  const std::lock_guard guard(writer_lock_);
  // Chunks first, names second: what a chunk names has been added before the chunk was full.
  Chunk* chunk = chunks_.take_full();
  write_names();
  while (chunk != nullptr) {
    Chunk* const next = chunks_.next(*chunk);
    if (chunk->head.count == 0) {
      report_.lost_no_room += chunk->head.lost;
      chunks_.give(*chunk);
    } else if (options_.mode == Mode::ring) {
      keep_in_ring(*chunk);
    } else {
      report_.lost_no_room += chunk->head.lost;
      write_chunk(*chunk);
      chunks_.give(*chunk);
    }
    chunk = next;
  }
  if (!last) return;
  if (options_.mode == Mode::ring) write_ring();
  if (options_.mode == Mode::totals) write_totals();
  write_sample();
}

void Recorder::keep_in_ring(Chunk& chunk) noexcept {
  report_.lost_no_room += chunk.head.lost;
  chunk.next.store(0, std::memory_order_relaxed);
  if (ring_last_ != nullptr) {
    chunks_.link(*ring_last_, chunk);
  } else {
    ring_first_ = &chunk;
  }
  ring_last_ = &chunk;
  ring_bytes_ += chunk.payload_bytes();
  while (ring_bytes_ > options_.limit && ring_first_ != ring_last_) {
    Chunk* const old = ring_first_;
    ring_first_ = chunks_.next(*old);
    ring_bytes_ -= old->payload_bytes();
    report_.dropped_old += old->head.count;
    chunks_.give(*old);
  }
}

void Recorder::write_ring() noexcept {
  options_.limit = 0;  // it was the ring's
  for (Chunk* chunk = ring_first_; chunk != nullptr; chunk = chunks_.next(*chunk)) write_chunk(*chunk);
  ring_first_ = ring_last_ = nullptr;
  ring_bytes_ = 0;
}

void Recorder::write_totals() noexcept {
  struct Line {
    std::uint64_t place;
    PlaceTotals sums;
  };
  constexpr std::size_t k_lines = 64;
  Line lines[k_lines];
  const std::uint32_t count = stream_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    const Stream& stream = *streams_[i].load(std::memory_order_relaxed);
    std::size_t used = 0;
    for (std::uint32_t place = 0; place < stream.totals_used; ++place) {
      const PlaceTotals& sums = stream.totals[place];
      if (sums.calls == 0 && sums.frees == 0 && sums.misses == 0) continue;
      lines[used++] = {place, sums};
      report_.events += sums.calls + sums.frees;
      if (used < k_lines) continue;
      write_record(k_totals_record, lines, used * sizeof(Line));
      used = 0;
    }
    if (used != 0) write_record(k_totals_record, lines, used * sizeof(Line));
  }
}

void Recorder::write_sample() noexcept {
  const os::ProcessSample process = os::sample_process();
  const std::uint64_t ticks = now();
  const Sample sample{ticks, static_cast<std::uint64_t>(os::clock().now()), process.resident_bytes, process.minor_faults,
                      process.major_faults};
  write_record(k_sample_record, &sample, sizeof sample);
}

bool Recorder::add_names(const std::uint8_t* items, std::size_t bytes, bool may_wait) noexcept {
  for (unsigned tries = 0; tries < 2; ++tries) {
    {
      const std::lock_guard guard(names_lock_);
      if (names_used_ + bytes <= k_names_bytes) {
        for (std::size_t i = 0; i < bytes; ++i) names_[names_now_][names_used_ + i] = items[i];
        names_used_ += bytes;
        return true;
      }
    }
    if (!may_wait || bytes > k_names_bytes) return false;
    const std::lock_guard guard(writer_lock_);
    write_names();
  }
  return false;
}

void Recorder::pool_begins(std::uint8_t item, const PoolName& pool) noexcept {
  add_life({pool.number, now(), 0});
  constexpr std::size_t k_longest_name = 256;
  std::uint8_t bytes[1 + 5 * k_longest_varint + k_longest_name];
  bytes[0] = item;
  std::uint8_t* at = put_varint(bytes + 1, pool.number);
  at = put_varint(at, reinterpret_cast<std::uintptr_t>(pool.first) / 16);
  at = put_varint(put_varint(at, pool.bytes), pool.capacity);
  const std::size_t length = strnlen(pool.name, k_longest_name);
  at = put_varint(at, length);
  std::memcpy(at, pool.name, length);
  add_names(bytes, static_cast<std::size_t>(at + length - bytes), true);
}

// Under writer_lock_.
void Recorder::write_names() noexcept {
  const std::uint8_t* items;
  std::size_t bytes;
  PoolLife lives[k_lives];
  std::size_t life_count;
  {
    const std::lock_guard guard(names_lock_);
    items = names_[names_now_];
    bytes = names_used_;
    life_count = lives_used_;
    std::copy_n(lives_, life_count, lives);
    if (bytes != 0) names_now_ ^= 1;
    names_used_ = lives_used_ = 0;
  }
  if (bytes != 0) write_record(k_names_record, items, bytes);
  if (life_count != 0) write_record(k_pools_record, lives, life_count * sizeof(PoolLife));
}

}  // namespace rtpool::trace
