// mimalloc, the allocator of free-threaded builds, reserves 1 GiB at once, accessible as a whole, and takes *segments* from it:
// of 32 MiB, or as many as one block needs. Locking the process would make all of it resident.
#include "numpy_handler/objects/reserve.hpp"

#include "numpy_handler/support/py_support.hpp"

#ifdef Py_GIL_DISABLED
#include "base/bits.hpp"
#include "os/kernel_pages.hpp"
#include "os/mappings.hpp"
#include "os/memory_map.hpp"
#endif

namespace rtpool::binding {

#ifdef Py_GIL_DISABLED
namespace {

constexpr std::size_t k_segment = std::size_t{32} << 20;
constexpr std::size_t k_slice = std::size_t{64} << 10;
// A segment begins with what it is (`mi_segment_t`): where its memory is from, three words; two flags; and its size.
constexpr std::size_t k_size_offset = 4 * sizeof(std::size_t);

// How far the segment reaches that begins at `at`; 0: nobody has written there, so that none does.
std::size_t segment_bytes(std::uintptr_t at, std::size_t most) noexcept {
  std::size_t resident = 0;
  if (os::count_resident(reinterpret_cast<const void*>(at), 1, &resident) == 0 && resident == 0) return 0;
  std::size_t bytes = 0;
  const bool known = os::peek(at + k_size_offset, &bytes, sizeof bytes) && bytes != 0 && bytes % k_slice == 0 && bytes <= most;
  // What does not look like one is left as it is, up to the end.
  return known ? base::align_up(bytes, k_segment) : most;
}

bool find_mapping(os::AddressRange* out) noexcept {
  const Reference object(PyList_New(1));
  os::MemoryMap map;
  if (!object || map.take() != 0) {
    PyErr_Clear();
    return false;
  }
  const os::MappedRange* const found = map.find(reinterpret_cast<std::uintptr_t>(object.get()));
  if (found == nullptr || found->has_file) return false;
  *out = {found->begin, found->end};
  return true;
}

}  // namespace

std::size_t reserved_for_objects(os::AddressRange* out, std::size_t capacity) noexcept {
  const os::AddressRange mapping = mapping_of_objects();
  std::size_t count = 0;
  for (std::uintptr_t at = base::align_up(mapping.begin, k_segment); at < mapping.end && mapping.end - at >= k_segment;) {
    if (const std::size_t used = segment_bytes(at, mapping.end - at); used != 0) {
      at += used;
      continue;
    }
    if (count != 0 && out[count - 1].end == at) {
      out[count - 1].end += k_segment;
    } else {
      if (count == capacity) break;
      out[count++] = {at, at + k_segment};
    }
    at += k_segment;
  }
  return count;
}

os::AddressRange mapping_of_objects() noexcept {
  os::AddressRange mapping;
  return find_mapping(&mapping) ? mapping : os::AddressRange{};
}

#else

std::size_t reserved_for_objects(os::AddressRange*, std::size_t) noexcept { return 0; }
os::AddressRange mapping_of_objects() noexcept { return {}; }

#endif

}  // namespace rtpool::binding
