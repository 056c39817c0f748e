#include "realtime/fault_log.hpp"

#include <algorithm>
#include <cstring>

#include "base/check.hpp"

namespace rtpool::realtime {

void FaultLog::clear() noexcept {
  // Most sections never fault: nothing to write then.
  if (count_ != 0) places_.fill(0);
  count_ = 0;
  shift_ = k_page_shift;
  unplaced_ = 0;
}

std::uint16_t* FaultLog::place_of(std::uintptr_t instruction, std::uintptr_t address) noexcept {
  const std::uintptr_t granule = granule_of(address);
  std::uint64_t hash = (instruction * 0x9E3779B97F4A7C15U) ^ (granule * 0xC2B2AE3D27D4EB4FU);
  hash ^= hash >> 32;
  // At most half of the places are taken, so there always is an empty one.
  for (std::size_t at = hash % k_places;; at = (at + 1) % k_places) {
    std::uint16_t& place = places_[at];
    if (place == 0) return &place;
    const FaultEntry& entry = entries_[place - 1U];
    if (entry.instruction == instruction && granule_of(entry.address) == granule) return &place;
  }
}

void FaultLog::faulted(const os::FaultSample& sample) noexcept {
  if (!keep_) return;
  std::uint16_t* place = place_of(sample.instruction, sample.address);
  while (*place == 0 && count_ == k_entries) {
    if (shift_ == k_whole) {
      ++unplaced_;
      return;
    }
    join();
    place = place_of(sample.instruction, sample.address);
  }
  if (*place == 0) {
    entries_[count_++] = {sample.instruction, sample.address, 0, iteration_};
    *place = static_cast<std::uint16_t>(count_);
  }
  ++entries_[*place - 1U].count;
}

// Coarser granules: entries that now are the same become one.
void FaultLog::join() noexcept {
  const auto end = entries_.begin() + static_cast<std::ptrdiff_t>(count_);
  // Beyond 48 bits nothing is left to tell apart.
  shift_ = shift_ + k_join_shift < 48 ? shift_ + k_join_shift : k_whole;
  std::sort(entries_.begin(), end, [this](const FaultEntry& a, const FaultEntry& b) {
    if (a.instruction != b.instruction) return a.instruction < b.instruction;
    if (granule_of(a.address) != granule_of(b.address)) return a.address < b.address;
    return a.first < b.first;
  });
  std::size_t kept = 0;
  for (std::size_t i = 1; i < count_; ++i) {
    FaultEntry& last = entries_[kept];
    const FaultEntry& next = entries_[i];
    if (next.instruction == last.instruction && granule_of(next.address) == granule_of(last.address)) {
      last.count += next.count;
    } else {
      entries_[++kept] = next;
    }
  }
  count_ = kept + 1;
  places_.fill(0);
  for (std::size_t i = 0; i < count_; ++i) {
    std::uint16_t* const place = place_of(entries_[i].instruction, entries_[i].address);
    RTPOOL_ASSERT(*place == 0);  // FL-1
    *place = static_cast<std::uint16_t>(i + 1);
  }
}

void FaultLog::mapped(const os::MappedFile& file) noexcept {
  // A file mapped again and again takes one place.
  LateFile* late = nullptr;
  for (std::size_t i = 0; i < file_count_ && late == nullptr; ++i) {
    if (files_[i].begin == file.begin && files_[i].end == file.end) late = &files_[i];
  }
  if (late == nullptr && file_count_ < k_late_files) late = &files_[file_count_++];
  if (late == nullptr) {
    ++forgotten_files_;
    return;
  }
  late->begin = file.begin;
  late->end = file.end;
  late->executable = file.executable;
  std::strncpy(late->name, file.name, sizeof late->name - 1);
}

const LateFile* FaultLog::late_file(std::uintptr_t address) const noexcept {
  for (std::size_t i = file_count_; i-- > 0;) {
    if (address - files_[i].begin < files_[i].end - files_[i].begin) return &files_[i];
  }
  return nullptr;
}

}  // namespace rtpool::realtime
