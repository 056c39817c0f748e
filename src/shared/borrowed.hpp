// The blocks that this process uses in runs of others, by where they lie.
//
// Each is a run of its own here, of one block and without granules: what others keep in the granules around it is theirs.
//
// Thread rule: the caller locks. Cost: `find` O(log of the blocks), `add` and `remove` O(blocks): pools that are full only.
// Failure: `add` is false without memory.
#pragma once

#include <cstdint>

namespace rtpool::shared {

struct Run;

class BorrowedBlocks {
 public:
  bool add(Run* run) noexcept;
  void remove(const Run* run) noexcept;
  // The one that holds an offset, or nullptr.
  Run* find(std::uint64_t offset) const noexcept;

  bool empty() const noexcept { return count_ == 0; }
  Run* const* begin() const noexcept { return runs_; }
  Run* const* end() const noexcept { return runs_ + count_; }
  // Forgets all of them; the runs stay the caller's.
  void clear() noexcept;

 private:
  std::uint32_t first_after(std::uint64_t offset) const noexcept;

  Run** runs_ = nullptr;  // the lowest first; they do not overlap
  std::uint32_t count_ = 0;
  std::uint32_t room_ = 0;
};

}  // namespace rtpool::shared
