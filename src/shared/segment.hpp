// A mapped segment: where its parts lie, each reached only through a bounded number.
//
// Thread rule: made and unmapped by one thread; in between it does not change, and what it points to is atomic.
// Cost: accessors are an addition. Failure: `open` and `create` answer errno values; EBADMSG for a segment that is
// damaged or of another kind, EACCES for one that others may write.
#pragma once

#include "os/shared_memory.hpp"
#include "shared/layout.hpp"

namespace rtpool::shared {

// What `create` is asked to do. With `name` empty the segment is nameless.
struct SegmentOptions {
  std::uint64_t size = 0;
  std::size_t page = k_page;
  const char* name = "";
  bool advise_huge = false;  // transparent huge pages
  bool prefault = true;      // else a nameless segment gets its memory at first touch
};

class Segment {
 public:
  // A new segment, mapped, its header written; a named one still without its name (`publish`).
  // ENOMEM, ENOSPC: the kernel or /dev/shm has no memory for it.
  static int create(os::SharedMemory& os, const SegmentOptions& options, Segment* out) noexcept;
  // Takes over `fd`, also on failure.
  static int open(os::SharedMemory& os, int fd, Segment* out) noexcept;

  // Whether `fd`, which stays open, is the segment of that id.
  static bool is_in(os::SharedMemory& os, int fd, const os::SegmentId& id) noexcept;

  int publish() noexcept { return os_->publish(fd_, header_copy_.name); }
  // The mapping through which the kernel lets nobody write; made at the first call.
  int map_read_only(bool prefault) noexcept;
  void unmap() noexcept;

  const Geometry& geometry() const noexcept { return geometry_; }
  const MadeHeader& made() const noexcept { return header_copy_; }
  Header& header() const noexcept { return *reinterpret_cast<Header*>(base_); }
  // `slot`, `granule` and `record` must be below their counts.
  ProcessSlot& process(std::uint32_t slot) const noexcept {
    return reinterpret_cast<ProcessSlot*>(base_ + geometry_.processes_offset)[slot];
  }
  Word& granule(std::uint32_t granule) const noexcept {
    return reinterpret_cast<Word*>(base_ + geometry_.granules_offset)[granule];
  }
  Record& record(std::uint32_t record) const noexcept {
    return reinterpret_cast<Record*>(base_ + geometry_.records_offset)[record];
  }
  char* data() const noexcept { return base_ + geometry_.data_offset; }
  const char* read_only_data() const noexcept {
    const char* const base = read_only_base();
    return base == nullptr ? nullptr : base + geometry_.data_offset;
  }
  char* base() const noexcept { return base_; }
  std::size_t mapped_bytes() const noexcept { return geometry_.file_bytes; }
  int fd() const noexcept { return fd_; }
  os::SharedMemory& os() const noexcept { return *os_; }
  // What the kernel said to the advice; 0 where it was not asked for.
  int advice_error() const noexcept { return advice_error_; }
  // Bytes of the data that have memory behind them. The kernel keeps count of the file: its pages are not looked at one by one,
  // but for what may lie past its end and, where not all of the file has memory, those of the tables. Five kernel calls at most.
  std::size_t held_data() const noexcept;
  bool intact() const noexcept { return same_header(&header().made, header_copy_); }

  // Whether an address is in either mapping, data or tables.
  bool covers(const void* address) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const auto other = reinterpret_cast<std::uintptr_t>(read_only_base());
    return at - reinterpret_cast<std::uintptr_t>(base_) < geometry_.file_bytes ||
           (other != 0 && at - other < geometry_.file_bytes);
  }

  // Offset of an address of either mapping in the data; false for any other address.
  bool offset_of(const void* address, std::uint64_t* offset) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    std::uint64_t distance = at - reinterpret_cast<std::uintptr_t>(data());
    if (distance >= geometry_.data_bytes) {
      const char* const other = read_only_data();
      if (other == nullptr) return false;
      distance = at - reinterpret_cast<std::uintptr_t>(other);
      if (distance >= geometry_.data_bytes) return false;
    }
    *offset = distance;
    return true;
  }
  // Seconds since the segment was made, as tickets have them.
  std::uint32_t age() const noexcept {
    return static_cast<std::uint32_t>((os_->seconds() - header_copy_.created) & 0xffffff);
  }

 private:
  // Set once while other threads look addresses up.
  char* read_only_base() const noexcept {
    return std::atomic_ref<char*>(const_cast<char*&>(read_only_)).load(std::memory_order_acquire);
  }

  os::SharedMemory* os_ = nullptr;
  int fd_ = -1;
  int advice_error_ = 0;
  char* base_ = nullptr;
  char* read_only_ = nullptr;
  Geometry geometry_;
  MadeHeader header_copy_{};
};

}  // namespace rtpool::shared
