// Waiting for what another thread is about to do, within some instructions as a rule.
//
// Thread rule: any thread. Cost: as long as it takes; sleeps once it takes more than a glance. Failure: none.
#pragma once

#include <time.h>

namespace rtpool::os {

template <class Done>
void await_others(Done&& done) noexcept {
  for (unsigned tries = 0; !done(); ++tries) {
    // A yield would not let a thread of lower real-time priority run; a sleep does.
    if (tries > 64) {
      const timespec pause{0, 50'000};
      ::nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace rtpool::os
