// Whole blocks at a glance: a macro of GoogleTest for each byte would be most of what a sanitized run does.
#pragma once

#include <cstddef>
#include <cstring>

namespace rtpool::test {

// All bytes of the block have that value.
inline bool all_are(unsigned char value, const void* block, std::size_t size) {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  return size == 0 || (bytes[0] == value && std::memcmp(bytes, bytes + 1, size - 1) == 0);
}

}  // namespace rtpool::test
