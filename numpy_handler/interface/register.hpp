// What module/module.cpp calls while the module loads: adds the capsule. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_interface(PyObject* module);  // table.cpp

}  // namespace rtpool::binding
