#include "pool/size_table.hpp"

#include <cstdlib>

#include "base/bits.hpp"

namespace rtpool::pool {
namespace {

SizeCount& find_place(SizeCount* entries, std::size_t places, std::uint64_t size) noexcept {
  std::size_t at = base::hash_place(size, places);
  while (entries[at].size != 0 && entries[at].size != size) at = (at + 1) & (places - 1);
  return entries[at];
}

}  // namespace

void SizeTable::clear() noexcept {
  std::free(entries_);
  entries_ = nullptr;
  other_ = {};
  places_ = used_ = 0;
}

bool SizeTable::reset(std::size_t places, bool may_grow) noexcept {
  clear();
  entries_ = static_cast<SizeCount*>(std::calloc(places * 2, sizeof(SizeCount)));
  if (entries_ == nullptr) return false;
  places_ = places * 2;
  may_grow_ = may_grow;
  return true;
}

SizeCount& SizeTable::at(std::uint64_t size) noexcept {
  SizeCount* place = &find_place(entries_, places_, size);
  if (place->size == size) return *place;
  if ((used_ + 1) * 2 > places_) {
    auto* const larger = may_grow_ ? static_cast<SizeCount*>(std::calloc(places_ * 2, sizeof(SizeCount))) : nullptr;
    if (larger == nullptr) return other_;
    for (std::size_t i = 0; i < places_; ++i) {
      if (entries_[i].size != 0) find_place(larger, places_ * 2, entries_[i].size) = entries_[i];
    }
    std::free(entries_);
    entries_ = larger;
    places_ *= 2;
    place = &find_place(entries_, places_, size);
  }
  place->size = size;
  ++used_;
  return *place;
}

}  // namespace rtpool::pool
