// Texts of Python's code objects, taken without an allocation or an exception, and which files are not the program's own.
// Thread rule: an attached thread state, unless said otherwise. Cost: O(length). Never fails: what does not fit is cut.
#pragma once

#include <cstddef>

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

// As UTF-8; returns the length, at most `room`. Control characters become '?'.
std::size_t copy_text(PyObject* text, char* out, std::size_t room) noexcept;

// Whether the file belongs to NumPy or to rtpool: the line that called them is what helps. Any thread.
bool is_library_file(const char* file, std::size_t length) noexcept;

// Called once, while the module loads.
void keep_library_folders(PyObject* numpy, PyObject* own_module) noexcept;

}  // namespace rtpool::binding
