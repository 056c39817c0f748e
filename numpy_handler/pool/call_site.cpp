// Where in the Python program a thread stands, for the reports of debug pools.
//
// Called from the four handler functions of a debug pool, so from anywhere. Without an attached thread state (no GIL) it says
// nothing. With one it reads the thread's own frames, runs no Python code, raises nothing and clears nothing: reading a
// frame may make a frame object, which on Python 3.11 may begin a garbage collection, so collections wait meanwhile.
#include "numpy_handler/support/state.hpp"

#include <frameobject.h>  // PyFrame_GetBack before Python 3.11

#include <cstdio>
#include <cstring>

#include "numpy_handler/pool/register.hpp"
#include "pool/pool.hpp"

namespace rtpool::binding {
namespace {

constexpr int k_most_frames = 32;

// Folders whose frames are passed over, with the separator at the end: the line that called NumPy is what helps.
char numpy_folder[512];
char own_folder[512];

bool is_attached() noexcept {
  PyThreadState* const mine = PyGILState_GetThisThreadState();
  if (mine == nullptr) return false;
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() == mine;
#else
  return _PyThreadState_UncheckedGet() == mine;  // whoever holds the GIL
#endif
}

// Copies as UTF-8 without an allocation or an exception; returns the length, at most `room`.
std::size_t copy_text(PyObject* text, char* out, std::size_t room) noexcept {
  if (!PyUnicode_Check(text)) return 0;
  const int kind = PyUnicode_KIND(text);
  const void* const data = PyUnicode_DATA(text);
  const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
  std::size_t used = 0;
  for (Py_ssize_t i = 0; i < length && used + 4 <= room; ++i) {
    Py_UCS4 c = PyUnicode_READ(kind, data, i);
    if (c < 0x20 || (c >= 0xD800 && c < 0xE000)) c = '?';
    if (c < 0x80) {
      out[used++] = static_cast<char>(c);
    } else if (c < 0x800) {
      out[used++] = static_cast<char>(0xC0 | c >> 6);
      out[used++] = static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      out[used++] = static_cast<char>(0xE0 | c >> 12);
      out[used++] = static_cast<char>(0x80 | (c >> 6 & 0x3F));
      out[used++] = static_cast<char>(0x80 | (c & 0x3F));
    } else {
      out[used++] = static_cast<char>(0xF0 | c >> 18);
      out[used++] = static_cast<char>(0x80 | (c >> 12 & 0x3F));
      out[used++] = static_cast<char>(0x80 | (c >> 6 & 0x3F));
      out[used++] = static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return used;
}

bool lies_in(const char* file, std::size_t length, const char* folder) noexcept {
  const std::size_t own = std::strlen(folder);
  return own != 0 && own <= length && std::memcmp(file, folder, own) == 0;
}

// "file:line in function" of one frame; its length, and whether it is a frame to pass over.
std::size_t describe(PyFrameObject* frame, char* text, std::size_t capacity, bool* pass) noexcept {
  const Reference code(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  auto* const object = reinterpret_cast<PyCodeObject*>(code.get());
  std::size_t used = copy_text(object->co_filename, text, capacity - 120);
  *pass = lies_in(text, used, numpy_folder) || lies_in(text, used, own_folder);
  used += static_cast<std::size_t>(std::snprintf(text + used, 40, ":%d in ", PyFrame_GetLineNumber(frame)));
  used += copy_text(object->co_name, text + used, capacity - used < 76 ? capacity - used : 76);
  return used;
}

std::size_t call_site(char* text, std::size_t capacity) noexcept {
  if (capacity < 256 || !is_attached()) return 0;
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

void keep_folder(const char* path, char* folder, std::size_t capacity) noexcept {
  const char* const end = std::strrchr(path, '/');
  const std::size_t length = end == nullptr ? 0 : static_cast<std::size_t>(end - path) + 1;
  if (length < capacity) std::memcpy(folder, path, length);
}

// Without a file to speak of (a frozen application) nothing is passed over.
void keep_folder_of(PyObject* module, char* folder, std::size_t capacity) noexcept {
  const Reference spec(module != nullptr ? PyObject_GetAttrString(module, "__spec__") : nullptr);
  const Reference origin(spec ? PyObject_GetAttrString(spec.get(), "origin") : nullptr);
  const char* const path = origin && PyUnicode_Check(origin.get()) ? PyUnicode_AsUTF8(origin.get()) : nullptr;
  if (path != nullptr) keep_folder(path, folder, capacity);
  PyErr_Clear();
}

}  // namespace

int register_call_site(PyObject* module) {
  const Reference numpy(PyImport_ImportModule("numpy"));
  if (!numpy) return -1;
  keep_folder_of(numpy.get(), numpy_folder, sizeof numpy_folder);
  keep_folder_of(module, own_folder, sizeof own_folder);
  pool::Pool::set_call_site(call_site);
  return 0;
}

}  // namespace rtpool::binding
