// What module/module.cpp calls while the module loads: each adds its types and functions. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_object_arenas(PyObject* module);  // arenas.cpp
int register_object_room(PyObject* module);    // room.cpp

}  // namespace rtpool::binding
