#include "pool/call_sites.hpp"

#include <cstdlib>
#include <cstring>

namespace rtpool::pool {
namespace {

// FNV-1a
std::uint32_t hash_of(const char* text, std::size_t length) noexcept {
  std::uint32_t hash = 2166136261U;
  for (std::size_t i = 0; i < length; ++i) hash = (hash ^ static_cast<unsigned char>(text[i])) * 16777619U;
  return hash;
}

}  // namespace

CallSites::~CallSites() {
  for (std::uint32_t i = 0; i < used_; ++i) std::free(texts_[i].text);
  std::free(texts_);
  std::free(places_);
}

bool CallSites::make_room() noexcept {
  if (texts_ == nullptr) texts_ = static_cast<Entry*>(std::calloc(k_most, sizeof(Entry)));
  if (texts_ == nullptr || used_ == k_most) return false;
  if ((used_ + 1) * 2 <= place_count_) return true;
  const std::uint32_t more = place_count_ == 0 ? 256 : place_count_ * 2;
  auto* const places = static_cast<std::uint32_t*>(std::calloc(more, sizeof(std::uint32_t)));
  if (places == nullptr) return false;
  for (std::uint32_t i = 0; i < used_; ++i) {
    std::uint32_t at = texts_[i].hash & (more - 1);
    while (places[at] != 0) at = (at + 1) & (more - 1);
    places[at] = i + k_first;
  }
  std::free(places_);
  places_ = places;
  place_count_ = more;
  return true;
}

SiteNumber CallSites::number_of(const char* text, std::size_t length) noexcept {
  if (length == 0) return k_no_site;
  const std::uint32_t hash = hash_of(text, length);
  if (place_count_ != 0) {
    for (std::uint32_t at = hash & (place_count_ - 1); places_[at] != 0; at = (at + 1) & (place_count_ - 1)) {
      const Entry& entry = texts_[places_[at] - k_first];
      if (entry.hash == hash && std::strlen(entry.text) == length && std::memcmp(entry.text, text, length) == 0) {
        return places_[at];
      }
    }
  }
  if (!make_room()) return k_unkept_site;
  auto* const copy = static_cast<char*>(std::malloc(length + 1));
  if (copy == nullptr) return k_unkept_site;
  std::memcpy(copy, text, length);
  copy[length] = '\0';
  texts_[used_] = {copy, hash};
  std::uint32_t at = hash & (place_count_ - 1);
  while (places_[at] != 0) at = (at + 1) & (place_count_ - 1);
  places_[at] = used_ + k_first;
  return used_++ + k_first;
}

const char* CallSites::text(SiteNumber number) const noexcept {
  if (number == k_no_site) return "(no Python frame)";
  if (number == k_unkept_site) return "(more places than are kept)";
  return texts_[number - k_first].text;
}

}  // namespace rtpool::pool
