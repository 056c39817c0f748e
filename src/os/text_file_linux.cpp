#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "os/text_file.hpp"

namespace rtpool::os {

bool read_text_file(const char* path, char* buffer, std::size_t capacity) noexcept {
  const int saved_errno = errno;
  std::size_t used = 0;
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    while (used + 1 < capacity) {
      const ssize_t got = ::read(file, buffer + used, capacity - 1 - used);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      used += static_cast<std::size_t>(got);
    }
    ::close(file);
  }
  buffer[used] = '\0';
  errno = saved_errno;
  return used != 0;
}

}  // namespace rtpool::os
