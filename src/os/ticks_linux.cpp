#include "os/ticks.hpp"

#include <cstring>

#include "os/text_file.hpp"

namespace rtpool::os {

Ticks Ticks::choose() noexcept {
  Ticks ticks;
  char name[32];
  if (!read_text_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", name, sizeof name)) return ticks;
  ticks.counter_ = std::strncmp(name, "tsc", 3) == 0 || std::strncmp(name, "arch_sys_counter", 16) == 0;
  return ticks;
}

}  // namespace rtpool::os
