// The checksum of zlib and PNG (CRC-32, polynomial 0xEDB88320), so that a reader in any language has it at hand.
// Thread rule: any thread. Cost: about 1 ns a byte. Never fails.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::base {

// Of `bytes` more bytes after those that came to `before` (0: none).
std::uint32_t crc32(const void* data, std::size_t bytes, std::uint32_t before = 0) noexcept;

}  // namespace rtpool::base
