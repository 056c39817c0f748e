#include "base/check.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace rtpool::base {

void report_line(const char* format, ...) noexcept {
  char text[512];
  constexpr int room = 500;
  int used = std::snprintf(text, sizeof text, "rtpool: ");
  va_list arguments;
  va_start(arguments, format);
  const int added = std::vsnprintf(text + used, static_cast<std::size_t>(room - used), format, arguments);
  va_end(arguments);
  if (added > 0) used = used + added < room ? used + added : room - 1;
  text[used++] = '\n';
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, static_cast<std::size_t>(used));
}

void check_failed(const char* file, int line, const char* text) noexcept {
  report_line("%s:%d: check failed: %s (this is a defect of rtpool)", file, line, text);
  std::abort();
}

}  // namespace rtpool::base
