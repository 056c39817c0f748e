// What threads and processes begin with that the calling thread starts: Scheduling::exchange_child_settings on Linux.
//
// Covered are threads that any loaded library starts with pthread_create (Python's, OpenBLAS's, OpenMP's, our own), and
// processes by fork, posix_spawn, system, popen, and by vfork followed by an exec. Not covered: who makes the system call
// himself (the Go runtime), and libraries loaded since the last call.
#pragma once

#include "os/scheduling.hpp"

namespace rtpool::os {

int exchange_child_settings(const ChildSettings& wanted, ChildSettings* before) noexcept;

}  // namespace rtpool::os
