// Reads a trace file back, as docs/reference/trace-format.md says: for tests of what writes it.
#pragma once

#include <unistd.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/crc32.hpp"
#include "trace/format.hpp"

namespace rtpool::test {

struct TracedEvent {
  unsigned type = 0;
  unsigned bits = 0;
  std::uint64_t time = 0;
  std::uint64_t place = 0;
  std::uint64_t address = 0;
  std::uint64_t size = 0;
  std::uint32_t thread = 0;
  trace::Outcome outcome() const { return static_cast<trace::Outcome>(bits >> trace::k_outcome_shift & 3); }
  trace::Mark mark() const { return static_cast<trace::Mark>(bits >> trace::k_mark_shift & 15); }
};

struct TracedFile {
  bool sound = true;  // every record's checksums and lengths
  std::string meta, end;
  std::vector<TracedEvent> events;  // chunk by chunk
  std::map<std::uint64_t, trace::PlaceTotals> totals;
  std::map<std::uint64_t, trace::PoolLife> lives;
  std::size_t samples = 0, names = 0, chunks = 0;
  std::uint64_t lost = 0;
};

class TraceReader {
 public:
  explicit TraceReader(int file) {
    const off_t size = ::lseek(file, 0, SEEK_END);
    data_.resize(static_cast<std::size_t>(size));
    EXPECT_EQ(::pread(file, data_.data(), data_.size(), 0), size);
  }

  TracedFile read() {
    std::size_t at = 0;
    while (at + sizeof(trace::RecordHead) <= data_.size()) {
      trace::RecordHead head;
      std::memcpy(&head, data_.data() + at, sizeof head);
      at += sizeof head;
      const bool whole = at + head.bytes <= data_.size();
      if (base::crc32(&head, 12) != head.head_crc || !whole || base::crc32(data_.data() + at, head.bytes) != head.payload_crc) {
        file_.sound = false;
        return file_;
      }
      record(head.kind, data_.data() + at, head.bytes);
      at += head.bytes;
    }
    file_.sound = file_.sound && at == data_.size();
    return file_;
  }

 private:
  void record(std::uint32_t kind, const std::uint8_t* payload, std::size_t bytes) {
    const std::string text(reinterpret_cast<const char*>(payload), bytes);
    if (kind == trace::k_meta_record) file_.meta = text;
    if (kind == trace::k_end_record) file_.end = text;
    if (kind == trace::k_sample_record) ++file_.samples;
    if (kind == trace::k_names_record) ++file_.names;
    if (kind == trace::k_totals_record) totals(payload, bytes);
    if (kind == trace::k_pools_record) lives(payload, bytes);
    if (kind == trace::k_events_record) events(payload, bytes);
  }
  void lives(const std::uint8_t* payload, std::size_t bytes) {
    for (std::size_t at = 0; at + sizeof(trace::PoolLife) <= bytes; at += sizeof(trace::PoolLife)) {
      trace::PoolLife line;
      std::memcpy(&line, payload + at, sizeof line);
      trace::PoolLife& life = file_.lives[line.number];
      life = {line.number, line.begun != 0 ? line.begun : life.begun, line.ended != 0 ? line.ended : life.ended};
    }
  }
  void totals(const std::uint8_t* payload, std::size_t bytes) {
    constexpr std::size_t k_line = sizeof(std::uint64_t) + sizeof(trace::PlaceTotals);
    for (std::size_t at = 0; at + k_line <= bytes; at += k_line) {
      std::uint64_t place;
      trace::PlaceTotals sums;
      std::memcpy(&place, payload + at, sizeof place);
      std::memcpy(&sums, payload + at + sizeof place, sizeof sums);
      trace::PlaceTotals& all = file_.totals[place];
      all.calls += sums.calls;
      all.bytes += sums.bytes;
      all.frees += sums.frees;
      all.freed_bytes += sums.freed_bytes;
      all.remote_frees += sums.remote_frees;
      all.misses += sums.misses;
      all.lifetime += sums.lifetime;
      all.peak_bytes += sums.peak_bytes;
    }
  }
  static std::uint64_t varint(const std::uint8_t** at) {
    std::uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const std::uint8_t byte = *(*at)++;
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
  }
  void events(const std::uint8_t* payload, std::size_t bytes) {
    trace::EventsHead head;
    std::memcpy(&head, payload, sizeof head);
    const std::uint8_t* const kinds = payload + sizeof head;
    const std::uint8_t* column[4];
    column[0] = kinds + head.count;
    for (int i = 1; i < 4; ++i) column[i] = column[i - 1] + head.bytes[i - 1];
    ++file_.chunks;
    file_.lost += head.lost;
    std::uint64_t marks = 0;
    std::uint64_t time = head.first_time;
    std::uint64_t address = 0;
    std::uint64_t slots[trace::k_size_slots] = {};
    for (std::uint32_t i = 0; i < head.count; ++i) {
      TracedEvent event;
      event.bits = kinds[i];
      event.type = kinds[i] & trace::k_type_mask;
      event.thread = head.thread;
      marks += event.type == trace::k_mark ? 1 : 0;
      event.time = time += varint(&column[0]);
      const bool block = event.type == trace::k_allocate || event.type == trace::k_free;
      if (block) event.place = varint(&column[1]);
      if (event.type != trace::k_mark && !(event.type == trace::k_allocate && event.outcome() == trace::Outcome::failed)) {
        const std::uint64_t step = varint(&column[2]);
        event.address = address += (step >> 1) ^ (0 - (step & 1));
      }
      if (event.type == trace::k_allocate) {
        std::uint64_t& slot = slots[event.place % trace::k_size_slots];
        if ((kinds[i] & trace::k_same_size) == 0) slot = varint(&column[3]);
        event.size = slot;
      } else if (event.type != trace::k_free) {
        event.size = varint(&column[3]);
      }
      file_.events.push_back(event);
    }
    file_.sound = file_.sound && time == head.last_time && marks == head.marks && column[3] == payload + bytes;
  }

  std::vector<std::uint8_t> data_;
  TracedFile file_;
};

}  // namespace rtpool::test
