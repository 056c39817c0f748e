// What module/module.cpp calls while the module loads: each adds its functions. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_replay(PyObject* module);  // replay.cpp

}  // namespace rtpool::binding
