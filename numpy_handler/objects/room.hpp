// Room for the objects of a loop in memory that Python has already, so that its first iteration does not fault there.
//
// Thread rule: a thread that is attached; the room is the process's, or on free-threaded builds the thread's. Cost: a
// millisecond; it may enter the kernel. Failure: no memory, and less room.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

void make_room() noexcept;  // room.cpp; heap_room.cpp on free-threaded builds

}  // namespace rtpool::binding
