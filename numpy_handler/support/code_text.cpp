#include "numpy_handler/support/code_text.hpp"

#include <cstring>
#include <string_view>

namespace rtpool::binding {
namespace {

// With the separator at the end.
char numpy_folder[512];
char own_folder[512];
// What NumPy before 1.25 calls the file of the functions that it makes to hand a call to `__array_function__`.
constexpr std::string_view k_numpy_made = "<__array_function__ internals>";

bool lies_in(const char* file, std::size_t length, const char* folder) noexcept {
  const std::size_t own = std::strlen(folder);
  return own != 0 && own <= length && std::memcmp(file, folder, own) == 0;
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

bool is_library_file(const char* file, std::size_t length) noexcept {
  if (lies_in(file, length, numpy_folder) || lies_in(file, length, own_folder)) return true;
  return std::string_view(file, length) == k_numpy_made;
}

void keep_library_folders(PyObject* numpy, PyObject* own_module) noexcept {
  keep_folder_of(numpy, numpy_folder, sizeof numpy_folder);
  keep_folder_of(own_module, own_folder, sizeof own_folder);
}

}  // namespace rtpool::binding
