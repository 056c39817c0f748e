// Shows this process' pools and sections to others while it runs, when they ask.
//
// One thread sleeps until somebody does; it then reads the counters that are there anyway and writes them into a page. Between
// questions nothing wakes, and no allocation knows of any of this.
//
// Thread rule: `start` and `restart_in_child` by one thread at a time. Cost: a question costs the process one wake-up of a thread
// with the ordinary policy and some microseconds a pool. Failure: errno values.
#pragma once

namespace rtpool::live {

// Once more in the same process: nothing.
int start() noexcept;
// In a forked child, whose parent may have been shown: the child shows itself from here on, if its parent did.
int restart_in_child() noexcept;

}  // namespace rtpool::live
