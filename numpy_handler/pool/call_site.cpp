// Where in the Python program a thread stands, for the reports of debug pools.
//
// Called from the four handler functions of a debug pool, so from anywhere. Without an attached thread state (no GIL) it says
// nothing. With one it reads the thread's own frames, runs no Python code, raises nothing and clears nothing: reading a
// frame may make a frame object, which on Python 3.11 may begin a garbage collection, so collections wait meanwhile.
#include <cstdio>

#include "numpy_handler/pool/register.hpp"
#include "numpy_handler/support/code_text.hpp"
#include "numpy_handler/support/frames.hpp"
#include "pool/pool.hpp"

namespace rtpool::binding {
namespace {

constexpr int k_most_frames = 32;

// "file:line in function" of one frame; its length, and whether it is a frame to pass over.
std::size_t describe(PyFrameObject* frame, char* text, std::size_t capacity, bool* pass) noexcept {
  const Reference code(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  auto* const object = reinterpret_cast<PyCodeObject*>(code.get());
  std::size_t used = copy_text(object->co_filename, text, capacity - 120);
  *pass = is_library_file(text, used);
  used += static_cast<std::size_t>(std::snprintf(text + used, 40, ":%d in ", PyFrame_GetLineNumber(frame)));
  used += copy_text(object->co_name, text + used, capacity - used < 76 ? capacity - used : 76);
  return used;
}

std::size_t call_site(char* text, std::size_t capacity) noexcept {
  if (capacity < 256 || attached_thread() == nullptr) return 0;
#if PY_VERSION_HEX < 0x030C0000
  const int collecting = PyGC_Disable();
#endif
  std::size_t used = 0;
  Reference frame(reinterpret_cast<PyObject*>(PyThreadState_GetFrame(PyThreadState_Get())));
  Reference innermost;
  bool pass = true;
  for (int i = 0; frame && pass && i < k_most_frames; ++i) {
    auto* const object = reinterpret_cast<PyFrameObject*>(frame.get());
    used = describe(object, text, capacity, &pass);
    if (!innermost) innermost = Reference::borrow(frame.get());
    if (pass) frame = Reference(reinterpret_cast<PyObject*>(PyFrame_GetBack(object)));
  }
  // Nothing but NumPy's frames: better one of those than none.
  if (pass && innermost) used = describe(reinterpret_cast<PyFrameObject*>(innermost.get()), text, capacity, &pass);
#if PY_VERSION_HEX < 0x030C0000
  if (collecting != 0) PyGC_Enable();
#endif
  return used;
}

}  // namespace

int register_call_site(PyObject* module) {
  const Reference numpy(PyImport_ImportModule("numpy"));
  if (!numpy) return -1;
  keep_library_folders(numpy.get(), module);
  pool::Pool::set_call_site(call_site);
  return 0;
}

}  // namespace rtpool::binding
