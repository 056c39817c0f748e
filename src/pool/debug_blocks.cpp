#include "pool/debug_blocks.hpp"

#include <cstdlib>
#include <new>

#include "base/bits.hpp"

namespace rtpool::pool {

DebugBlocks::~DebugBlocks() {
  while (chunks_ != nullptr) {
    Chunk* const next = chunks_->next;
    std::free(chunks_);
    chunks_ = next;
  }
  std::free(places_);
}

std::size_t DebugBlocks::place_of(const void* block) const noexcept {
  return base::hash_place(reinterpret_cast<std::uintptr_t>(block) >> 4, place_count_);
}

bool DebugBlocks::make_room() noexcept {
  if (unused_ == nullptr) {
    void* const room = std::malloc(sizeof(Chunk));
    if (room == nullptr) return false;
    auto* const chunk = new (room) Chunk;
    chunk->next = chunks_;
    chunks_ = chunk;
    for (DebugBlock& record : chunk->records) {
      record.next = unused_;
      unused_ = &record;
    }
  }
  if ((used_ + 1) * 2 <= place_count_) return true;
  const std::size_t old_count = place_count_;
  DebugBlock** const old = places_;
  const std::size_t more = old_count == 0 ? 256 : old_count * 2;
  auto** const places = static_cast<DebugBlock**>(std::calloc(more, sizeof(DebugBlock*)));
  if (places == nullptr) return false;
  places_ = places;
  place_count_ = more;
  for (std::size_t i = 0; i < old_count; ++i) {
    if (old[i] == nullptr) continue;
    std::size_t at = place_of(old[i]->block);
    while (places_[at] != nullptr) at = (at + 1) & (place_count_ - 1);
    places_[at] = old[i];
  }
  std::free(old);
  return true;
}

DebugBlock* DebugBlocks::add(char* block) noexcept {
  if (!make_room()) return nullptr;
  DebugBlock* const record = unused_;
  unused_ = record->next;
  *record = {};
  record->block = block;
  record->number = ++made_;
  record->state = DebugState::live;
  std::size_t at = place_of(block);
  while (places_[at] != nullptr) at = (at + 1) & (place_count_ - 1);
  places_[at] = record;
  ++used_;
  return record;
}

void DebugBlocks::remove(DebugBlock& record) noexcept {
  std::size_t at = place_of(record.block);
  while (places_[at] != &record) at = (at + 1) & (place_count_ - 1);
  --used_;
  // Close the gap: whatever hashed to the gap or before it moves up, so that no search stops too early.
  for (std::size_t next = (at + 1) & (place_count_ - 1); places_[next] != nullptr; next = (next + 1) & (place_count_ - 1)) {
    const std::size_t home = place_of(places_[next]->block);
    if (((next - home) & (place_count_ - 1)) < ((next - at) & (place_count_ - 1))) continue;
    places_[at] = places_[next];
    at = next;
  }
  places_[at] = nullptr;
  record.state = DebugState::unused;
  record.next = unused_;
  unused_ = &record;
}

DebugBlock* DebugBlocks::find(const void* block) noexcept {
  if (place_count_ == 0) return nullptr;
  for (std::size_t at = place_of(block); places_[at] != nullptr; at = (at + 1) & (place_count_ - 1)) {
    if (places_[at]->block == block) return places_[at];
  }
  return nullptr;
}

DebugBlock* DebugBlocks::near(const void* address) noexcept {
  DebugBlock* found = nullptr;
  for_each([&](DebugBlock& record) {
    const auto offset = static_cast<std::size_t>(static_cast<const char*>(address) - record.raw);
    if (offset < record.total && (found == nullptr || record.state == DebugState::live)) found = &record;
  });
  return found;
}

}  // namespace rtpool::pool
