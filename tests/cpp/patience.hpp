// How long tests wait before they take something for hung: as written, times RTPOOL_TEST_PATIENCE on a machine that is known to be
// slow (an emulated one, tests/arm). Nothing is measured by it.
#pragma once

#include <unistd.h>

#include <cstdlib>

namespace rtpool::test {

inline unsigned patience(unsigned written) noexcept {
  const char* const text = std::getenv("RTPOOL_TEST_PATIENCE");
  const unsigned long times = text != nullptr ? std::strtoul(text, nullptr, 10) : 1;
  return written * static_cast<unsigned>(times != 0 ? times : 1);
}

// The calling process ends by SIGALRM if it is still there after so many seconds.
inline void end_if_hung(unsigned seconds) noexcept { ::alarm(patience(seconds)); }

}  // namespace rtpool::test
