#include "base/report.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>

namespace rtpool::base {

void Report::line(const char* format, ...) noexcept {
  const std::size_t room = k_room - 1 - used_;
  int added = std::snprintf(text_ + used_, room, "rtpool: ");
  if (added < 0 || static_cast<std::size_t>(added) >= room) return;
  const std::size_t begin = used_ + static_cast<std::size_t>(added);
  va_list arguments;
  va_start(arguments, format);
  added = std::vsnprintf(text_ + begin, k_room - 1 - begin, format, arguments);
  va_end(arguments);
  if (added < 0) return;
  used_ = begin + static_cast<std::size_t>(added);
  if (used_ > k_room - 2) used_ = k_room - 2;
  text_[used_++] = '\n';
}

void Report::write() noexcept {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_, used_);
  used_ = 0;
}

}  // namespace rtpool::base
