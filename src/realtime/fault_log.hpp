// Where a section's page faults happened: one entry for each instruction and page, with how often and since when.
//
// Fixed buffers, some 80 KiB. A loop that faults on ever new pages fills them: then entries of neighbouring pages are joined,
// sixteen at a time, so that every fault stays counted, and the address of the first of them stands for all. Nothing is
// looked up while the loop runs: what lies at an address is asked once it has ended.
//
//   FL-1  no two entries have the same instruction and the same address in units of `granule`
//   FL-2  the counts of all entries and `unplaced` are the faults told since `clear`
//
// Thread rule: one thread at a time. Cost: O(1) a fault, some 20 ns; joining takes a tenth of a millisecond, at most 14 times
// between two `clear`. No allocation, no kernel call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "os/usage.hpp"

namespace rtpool::realtime {

struct FaultEntry {
  std::uintptr_t instruction = 0;
  std::uintptr_t address = 0;  // of the first one
  std::uint64_t count = 0;
  std::uint64_t first = 0;     // the iteration with the first one
};

// A file that the section's thread mapped while it was watched.
struct LateFile {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool executable = false;
  char name[os::k_mapped_name] = {};
};

class FaultLog final : public os::WatchListener {
 public:
  static constexpr std::size_t k_entries = 2048;
  static constexpr std::size_t k_late_files = 32;

  // Forgets the faults; files stay, as they may still be mapped.
  void clear() noexcept;
  // Faults told from now on are this iteration's, or nobody's where they are not to be kept. Files always are.
  void expect(std::uint64_t iteration, bool keep) noexcept {
    iteration_ = iteration;
    keep_ = keep;
  }

  void faulted(const os::FaultSample& sample) noexcept override;
  void mapped(const os::MappedFile& file) noexcept override;

  std::size_t count() const noexcept { return count_; }
  const FaultEntry& entry(std::size_t i) const noexcept { return entries_[i]; }
  // Faults that are in no entry: more different instructions than there is room for.
  std::uint64_t unplaced() const noexcept { return unplaced_; }
  // Bytes of address space that an entry covers.
  std::uintptr_t granule() const noexcept { return shift_ < k_whole ? std::uintptr_t{1} << shift_ : 0; }
  // The file last mapped over the address, or nullptr.
  const LateFile* late_file(std::uintptr_t address) const noexcept;
  // Files that found no room.
  std::uint64_t forgotten_files() const noexcept { return forgotten_files_; }

 private:
  static constexpr std::size_t k_places = 2 * k_entries;
  static constexpr unsigned k_page_shift = 12;
  static constexpr unsigned k_join_shift = 4;
  static constexpr unsigned k_whole = 64;  // entries no longer tell addresses apart

  std::uintptr_t granule_of(std::uintptr_t address) const noexcept { return shift_ < k_whole ? address >> shift_ : 0; }
  std::uint16_t* place_of(std::uintptr_t instruction, std::uintptr_t address) noexcept;
  void join() noexcept;

  std::size_t count_ = 0;
  unsigned shift_ = k_page_shift;
  std::uint64_t iteration_ = 0;
  bool keep_ = true;
  std::uint64_t unplaced_ = 0;
  std::size_t file_count_ = 0;
  std::uint64_t forgotten_files_ = 0;
  std::array<FaultEntry, k_entries> entries_{};
  std::array<std::uint16_t, k_places> places_{};  // an entry's number + 1, 0 for none; by hash
  std::array<LateFile, k_late_files> files_{};
};

}  // namespace rtpool::realtime
