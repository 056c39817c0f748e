// What module/module.cpp calls while the module loads: each adds its types and functions. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_shared(PyObject* module);         // pool_type.cpp
int register_shared_blocks(PyObject* module);  // opened_array.cpp
int register_shared_arrays(PyObject* module);  // array_type.cpp

}  // namespace rtpool::binding
