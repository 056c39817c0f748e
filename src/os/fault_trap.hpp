// The OS contract for faults: a word to the user before a touch of guarded memory ends the process.
//
// Thread rule: `trap_faults` may be called by any thread. Cost: one kernel call, once a process. Failure: errno.
#pragma once

namespace rtpool::os {

// Calls `explain` with the address of every invalid access (SIGSEGV) from then on, on the stack of the signal handler, and
// then what was installed before: the default, or a handler such as Python's faulthandler. Nothing is kept from happening.
// A handler that is installed later and does not pass the signal on takes the place of this one. The first call counts;
// further ones change nothing. `explain` must be safe in a signal handler: no allocation, no lock that it waits for.
int trap_faults(void (*explain)(const void* address) noexcept) noexcept;

}  // namespace rtpool::os
