// The Python frames of the calling thread, read where they lie: no frame object is made, nothing of Python is run or changed.
// What differs between Python 3.10 and 3.15 in this stands here.
//
// Thread rule: the thread itself. Cost: some ns a frame. A frame may be one of the interpreter's own without code: `code` is
// nullptr then.
#pragma once

#include "numpy_handler/support/py_support.hpp"

#include <frameobject.h>

namespace rtpool::binding {

// This thread's state if it may touch Python objects now (holds the GIL, where there is one), else nullptr.
inline PyThreadState* attached_thread() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked();  // thread-local, and nullptr while detached
#else
  PyThreadState* const mine = PyGILState_GetThisThreadState();
  return mine != nullptr && _PyThreadState_UncheckedGet() == mine ? mine : nullptr;  // the latter: whoever holds the GIL
#endif
}

struct FrameView {
#if PY_VERSION_HEX < 0x030B0000
  using Raw = PyFrameObject;
#elif PY_VERSION_HEX < 0x030C0000
  // The first words of 3.11's _PyInterpreterFrame.
  struct Raw {
    void* function;
    void* globals;
    void* builtins;
    void* locals;
    PyCodeObject* code;
    void* object;
    Raw* previous;
    char* instruction;
  };
#else
  // The first words of _PyInterpreterFrame since 3.12; the rest is asked for.
  struct Raw {
    void* executable;
    Raw* previous;
  };
#endif

  static Raw* innermost(PyThreadState* thread) noexcept {
#if PY_VERSION_HEX < 0x030B0000
    return thread->frame;
#elif PY_VERSION_HEX < 0x030D0000
    return reinterpret_cast<Raw*>(thread->cframe->current_frame);
#else
    return reinterpret_cast<Raw*>(thread->current_frame);
#endif
  }
  static Raw* outer(Raw* frame) noexcept {
#if PY_VERSION_HEX < 0x030B0000
    return frame->f_back;
#else
    return frame->previous;
#endif
  }
  // Borrowed: the frame keeps it.
  static PyCodeObject* code(Raw* frame) noexcept {
#if PY_VERSION_HEX < 0x030B0000
    return frame->f_code;
#elif PY_VERSION_HEX < 0x030C0000
    return frame->code;
#else
    PyObject* const code = PyUnstable_InterpreterFrame_GetCode(reinterpret_cast<_PyInterpreterFrame*>(frame));
    if (code == nullptr) return nullptr;
    Py_DECREF(code);
    if (!PyCode_Check(code)) return nullptr;
    auto* const found = reinterpret_cast<PyCodeObject*>(code);
    // Between a function and who called it from C lies one of the interpreter's own in 3.12, and since 3.13 one between
    // `__init__` and who made the object. They have code whose first instruction to be traced comes after all others.
    if (found->_co_firsttraceable > 0 && instruction(frame) < 2 * found->_co_firsttraceable) return nullptr;
    return found;
#endif
  }
  // In bytes from the begin of the code, as `co_positions` counts them in pairs; below zero: the frame has not begun.
  static int instruction(Raw* frame) noexcept {
#if PY_VERSION_HEX < 0x030B0000
    return frame->f_lasti * 2;
#elif PY_VERSION_HEX < 0x030C0000
    return static_cast<int>(frame->instruction - frame->code->co_code_adaptive);
#else
    return PyUnstable_InterpreterFrame_GetLasti(reinterpret_cast<_PyInterpreterFrame*>(frame));
#endif
  }
};

}  // namespace rtpool::binding
