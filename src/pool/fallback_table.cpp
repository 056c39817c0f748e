#include "pool/fallback_table.hpp"

#include <cstdlib>
#include <mutex>

#include "base/bits.hpp"

namespace rtpool::pool {

FallbackTable::~FallbackTable() { std::free(entries_); }

std::size_t FallbackTable::place_of(const void* block) const noexcept {
  return base::hash_place(reinterpret_cast<std::uintptr_t>(block) >> 4, places_);
}

bool FallbackTable::add(void* block, std::size_t size) noexcept {
  const std::lock_guard guard(lock_);
  if ((used_ + 1) * 2 > places_) {
    const std::size_t larger = places_ == 0 ? 64 : places_ * 2;
    auto* const entries = static_cast<Entry*>(std::calloc(larger, sizeof(Entry)));
    if (entries == nullptr) return false;
    Entry* const old = entries_;
    const std::size_t old_places = places_;
    entries_ = entries;
    places_ = larger;
    for (std::size_t i = 0; i < old_places; ++i) {
      if (old[i].block == nullptr) continue;
      std::size_t at = place_of(old[i].block);
      while (entries_[at].block != nullptr) at = (at + 1) & (places_ - 1);
      entries_[at] = old[i];
    }
    std::free(old);
  }
  std::size_t at = place_of(block);
  while (entries_[at].block != nullptr) at = (at + 1) & (places_ - 1);
  entries_[at] = {block, size};
  __atomic_store_n(&used_, used_ + 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&all_, 1, __ATOMIC_RELAXED);
  return true;
}

bool FallbackTable::find(const void* block, std::size_t* size) noexcept {
  if (count() == 0) return false;  // whoever asks for a block has it from the thread that added it: the count is seen
  const std::lock_guard guard(lock_);
  if (used_ == 0) return false;
  for (std::size_t at = place_of(block); entries_[at].block != nullptr; at = (at + 1) & (places_ - 1)) {
    if (entries_[at].block != block) continue;
    *size = entries_[at].size;
    return true;
  }
  return false;
}

bool FallbackTable::remove(void* block, std::size_t* size) noexcept {
  if (count() == 0) return false;  // whoever asks for a block has it from the thread that added it: the count is seen
  const std::lock_guard guard(lock_);
  if (used_ == 0) return false;
  std::size_t at = place_of(block);
  while (entries_[at].block != block) {
    if (entries_[at].block == nullptr) return false;
    at = (at + 1) & (places_ - 1);
  }
  *size = entries_[at].size;
  __atomic_store_n(&used_, used_ - 1, __ATOMIC_RELAXED);
  __atomic_fetch_sub(&all_, 1, __ATOMIC_RELAXED);
  // Close the gap: whatever hashed to the gap or before it moves up, so that no search stops too early.
  for (std::size_t next = (at + 1) & (places_ - 1); entries_[next].block != nullptr; next = (next + 1) & (places_ - 1)) {
    const std::size_t home = place_of(entries_[next].block);
    if (((next - home) & (places_ - 1)) < ((next - at) & (places_ - 1))) continue;
    entries_[at] = entries_[next];
    at = next;
  }
  entries_[at] = {nullptr, 0};
  return true;
}

}  // namespace rtpool::pool
