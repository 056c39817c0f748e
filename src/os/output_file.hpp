// A file that is only written to, by its descriptor.
// Thread rule: any thread, one at a time for a file. Cost: kernel calls. Failure: an errno value; `errno` is left alone.
#pragma once

#include <cstddef>

namespace rtpool::os {

struct Piece {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

// Writes all pieces one behind the other, at most 16. ENOSPC, EFBIG, EDQUOT, ...: what was written before stays.
int write_pieces(int file, const Piece* pieces, std::size_t count) noexcept;
int close_file(int file) noexcept;

}  // namespace rtpool::os
