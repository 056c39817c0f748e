#include "shared/borrowed.hpp"

#include <algorithm>
#include <cstdlib>

#include "shared/heap.hpp"

namespace rtpool::shared {

std::uint32_t BorrowedBlocks::first_after(std::uint64_t offset) const noexcept {
  const auto after = [](std::uint64_t at, const Run* run) { return at < run->start; };
  return static_cast<std::uint32_t>(std::upper_bound(begin(), end(), offset, after) - begin());
}

bool BorrowedBlocks::add(Run* run) noexcept {
  if (count_ == room_) {
    const std::uint32_t room = room_ == 0 ? 64 : room_ * 2;
    auto* const grown = static_cast<Run**>(std::realloc(runs_, room * sizeof(Run*)));
    if (grown == nullptr) return false;
    runs_ = grown;
    room_ = room;
  }
  const std::uint32_t at = first_after(run->start);
  std::copy_backward(runs_ + at, runs_ + count_, runs_ + count_ + 1);
  runs_[at] = run;
  ++count_;
  return true;
}

void BorrowedBlocks::remove(const Run* run) noexcept {
  Run** const at = std::find(runs_, runs_ + count_, run);
  if (at == runs_ + count_) return;
  std::copy(at + 1, runs_ + count_, at);
  --count_;
}

Run* BorrowedBlocks::find(std::uint64_t offset) const noexcept {
  const std::uint32_t after = first_after(offset);
  if (after == 0) return nullptr;
  Run* const run = runs_[after - 1];
  return offset - run->start < run->block_bytes ? run : nullptr;
}

void BorrowedBlocks::clear() noexcept {
  std::free(runs_);
  runs_ = nullptr;
  count_ = room_ = 0;
}

}  // namespace rtpool::shared
