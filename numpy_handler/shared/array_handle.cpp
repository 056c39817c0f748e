// The parts of handles that are no Python type: bounds, bytes, dtypes, errors.
#include <cerrno>
#include <cstring>

#include "numpy_handler/shared/array.hpp"

namespace rtpool::binding {
namespace {

constexpr std::uint32_t k_message_magic = 0x41535452;  // "RTSA"
constexpr int k_most_dimensions = 64;

struct MessageHead {
  std::uint32_t magic;
  std::uint8_t dimensions;
  std::int8_t type;
  std::uint8_t writeable;
  std::uint8_t version;
  os::SegmentId id;
  std::int32_t pid;
  std::int32_t fd;
  std::uint32_t record;
  std::uint32_t generation;
  std::uint32_t sender_slot;
  std::uint32_t sender_generation;
  std::uint64_t offset;
};
static_assert(sizeof(MessageHead) == 56 && sizeof(npy_intp) == 8);

}  // namespace

bool check_shareable(PyArray_Descr* dtype) noexcept {
  if (!PyDataType_FLAGCHK(dtype, NPY_ITEM_REFCOUNT) && !PyDataType_FLAGCHK(dtype, NPY_ITEM_IS_POINTER) &&
      !PyDataType_FLAGCHK(dtype, NPY_LIST_PICKLE)) {
    return true;
  }
  PyErr_Format(PyExc_TypeError,
               "arrays of %R cannot be shared: their elements are pointers, which mean nothing in another process",
               reinterpret_cast<PyObject*>(dtype));
  return false;
}

bool check_plain(PyObject* object) noexcept {
  if (PyArray_CheckExact(object)) return true;
  const bool masked = PyObject_HasAttrString(object, "mask") != 0;
  PyErr_Format(PyExc_TypeError, "share() needs a plain NumPy array: a handle does not carry %s. %s",
               masked ? "the mask of a masked array" : "what a subclass adds to it",
               masked ? "Share `array.data` and `np.ma.getmaskarray(array)`, and join them again where they are opened"
                      : "Share `np.asarray(array)`, and make the type again with `.view(type)` where it is opened");
  return false;
}

bool lies_within(const SharedLayout& layout, npy_intp item_size, const shared::BlockRange& range) noexcept {
  if (item_size < 0 || layout.offset < range.offset || layout.offset - range.offset > range.bytes) return false;
  npy_intp below = 0;
  npy_intp above = item_size;
  for (int i = 0; i < layout.dimensions; ++i) {
    const npy_intp extent = layout.extents[i];
    const npy_intp stride = layout.extents[layout.dimensions + i];
    if (extent < 0) return false;
    if (extent == 0) return true;
    npy_intp reach = 0;
    npy_intp* const side = stride < 0 ? &below : &above;
    if (__builtin_mul_overflow(extent - 1, stride, &reach) || __builtin_add_overflow(*side, reach, side)) return false;
  }
  const auto at = static_cast<npy_intp>(layout.offset - range.offset);
  npy_intp end = 0;
  if (__builtin_add_overflow(at, above, &end)) return false;
  return at + below >= 0 && static_cast<std::uint64_t>(end) <= range.bytes;
}

PyObject* encode(const SharedLayout& layout, const SharedMessage& message) noexcept {
  const auto extents = static_cast<std::size_t>(layout.dimensions) * 2 * sizeof(npy_intp);
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(sizeof(MessageHead) + extents));
  if (bytes == nullptr) return nullptr;
  MessageHead head{};
  head.magic = k_message_magic;
  head.version = 1;
  head.dimensions = static_cast<std::uint8_t>(layout.dimensions);
  head.type = static_cast<std::int8_t>(message.type);
  head.writeable = layout.writeable ? 1 : 0;
  head.id = message.address.id;
  head.pid = message.address.pid;
  head.fd = message.address.fd;
  head.record = layout.ref.record;
  head.generation = layout.ref.generation;
  head.sender_slot = message.sender.slot;
  head.sender_generation = message.sender.generation;
  head.offset = layout.offset;
  std::memcpy(PyBytes_AS_STRING(bytes), &head, sizeof head);
  if (extents != 0) std::memcpy(PyBytes_AS_STRING(bytes) + sizeof head, layout.extents, extents);
  return bytes;
}

bool decode(PyObject* bytes, SharedLayout* layout, SharedMessage* message) noexcept {
  MessageHead head{};
  const bool whole = PyBytes_Check(bytes) && PyBytes_GET_SIZE(bytes) >= static_cast<Py_ssize_t>(sizeof head);
  if (whole) std::memcpy(&head, PyBytes_AS_STRING(bytes), sizeof head);
  const std::size_t extents = head.dimensions * 2 * sizeof(npy_intp);
  if (!whole || head.magic != k_message_magic || head.version != 1 || head.dimensions > k_most_dimensions ||
      PyBytes_GET_SIZE(bytes) != static_cast<Py_ssize_t>(sizeof head + extents)) {
    PyErr_SetString(PyExc_ValueError, "these bytes are no handle of a shared array of this version of rtpool");
    return false;
  }
  layout->extents = static_cast<npy_intp*>(PyMem_Malloc(extents == 0 ? 1 : extents));
  if (layout->extents == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  if (extents != 0) std::memcpy(layout->extents, PyBytes_AS_STRING(bytes) + sizeof head, extents);
  layout->dimensions = head.dimensions;
  layout->writeable = head.writeable != 0;
  layout->ref = {head.record, head.generation};
  layout->offset = head.offset;
  message->address = {head.id, head.pid, head.fd};
  message->type = head.type;
  message->sender = {head.sender_slot, head.sender_generation};
  return true;
}

int plain_type(PyArray_Descr* dtype) noexcept {
  const int type = dtype->type_num;
  if (type < 0 || type == NPY_OBJECT || (type > NPY_CLONGDOUBLE && type != NPY_HALF)) return -1;
  PyArray_Descr* plain = PyArray_DescrFromType(type);
  const bool same = plain == dtype;
  Py_XDECREF(reinterpret_cast<PyObject*>(plain));
  return same ? type : -1;
}

PyObject* raise_unavailable(int error) noexcept {
  switch (error) {
    case ESTALE:
      PyErr_SetString(PyExc_LookupError,
                      "the shared array is gone: nobody held it any more, or its handle was under way for too long and "
                      "was given up (SharedPool.reclaim)");
      break;
    case ENOENT:
      PyErr_SetString(PyExc_FileNotFoundError,
                      "no living process of this user has the shared pool of this array open, so its memory is gone");
      break;
    case EACCES:
      PyErr_SetString(PyExc_PermissionError,
                      "the process that sent this array has its shared pool open, but may not be looked at: it is not "
                      "dumpable (a Python with file capabilities, or PR_SET_DUMPABLE 0). Open the pool here before, by a "
                      "name (SharedPool.attach) or by fork, or give the capabilities another way (systemd's "
                      "AmbientCapabilities=)");
      break;
    case EBADMSG:
      PyErr_SetString(PyExc_ValueError, "the handle does not fit the shared pool: one of the two is damaged or foreign");
      break;
    case ENOSPC:
      PyErr_SetString(PyExc_OSError, "the shared pool has no place for another process");
      break;
    default:
      errno = error;
      PyErr_SetFromErrno(PyExc_OSError);
  }
  return nullptr;
}

}  // namespace rtpool::binding
