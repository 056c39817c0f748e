#include "os/output_file.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include "os/errno.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_most_pieces = 16;

}  // namespace

int write_pieces(int file, const Piece* pieces, std::size_t count) noexcept {
  const KeepErrno keep;
  iovec parts[k_most_pieces];
  std::size_t used = 0;
  for (std::size_t i = 0; i < count && used < k_most_pieces; ++i) {
    if (pieces[i].bytes != 0) parts[used++] = {const_cast<void*>(pieces[i].data), pieces[i].bytes};
  }
  int error = 0;
  for (std::size_t first = 0; first < used;) {
    const ssize_t written = ::writev(file, parts + first, static_cast<int>(used - first));
    if (written < 0) {
      if (errno == EINTR) continue;
      error = errno;
      break;
    }
    auto left = static_cast<std::size_t>(written);
    while (first < used && left >= parts[first].iov_len) left -= parts[first++].iov_len;
    if (first < used) {
      parts[first].iov_base = static_cast<char*>(parts[first].iov_base) + left;
      parts[first].iov_len -= left;
    }
  }
  return error;
}

int close_file(int file) noexcept {
  const KeepErrno keep;
  return result(::close(file));
}

}  // namespace rtpool::os
