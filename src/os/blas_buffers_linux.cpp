// Linux: blas_memory_alloc and blas_memory_free, which OpenBLAS exports; mincore.
#include "os/blas_buffers.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "os/kernel_pages.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_libraries = 8;
constexpr std::size_t k_buffers = 32;
// Of each buffer it looks at no more than this, the least that OpenBLAS maps.
constexpr std::size_t k_most_bytes = std::size_t{32} << 20;
constexpr std::size_t k_most_pages = k_most_bytes / 4096;

struct Names {
  std::array<const char*, k_libraries> items;
  std::size_t count = 0;
};

int collect(dl_phdr_info* object, std::size_t, void* out) noexcept {
  auto* const names = static_cast<Names*>(out);
  const char* const folder = std::strrchr(object->dlpi_name, '/');
  if (folder != nullptr && std::strstr(folder, "blas") != nullptr && names->count < k_libraries) {
    names->items[names->count++] = object->dlpi_name;  // as long as the library is loaded
  }
  return 0;
}

std::size_t threads_of_process() noexcept {
  std::FILE* const file = std::fopen("/proc/self/status", "re");
  if (file == nullptr) return 0;
  char line[256];
  std::size_t threads = 0;
  while (threads == 0 && std::fgets(line, sizeof line, file) != nullptr) std::sscanf(line, "Threads: %zu", &threads);
  std::fclose(file);
  return threads;
}

using Alloc = void* (*)(int);
using Free = void (*)(void*);

// The library's own function, not one that it finds in another.
template <typename Function>
Function own_symbol(void* library, const char* file, const char* name) noexcept {
  void* const found = ::dlsym(library, name);
  Dl_info info;
  const bool own = found != nullptr && ::dladdr(found, &info) != 0 && std::strcmp(info.dli_fname, file) == 0;
  return own ? reinterpret_cast<Function>(found) : nullptr;
}

// Marks the pages that are resident, up to `pages` or to the end of the mapping.
void mark_resident(const std::byte* begin, std::size_t pages, std::array<bool, k_most_pages>* used) noexcept {
  constexpr std::size_t k_part = 256;
  unsigned char present[k_part];
  for (std::size_t first = 0; first < pages; first += k_part) {
    const std::size_t count = std::min(k_part, pages - first);
    void* const at = const_cast<std::byte*>(begin) + first * page_size();
    if (::mincore(at, count * page_size(), present) != 0) return;
    for (std::size_t i = 0; i < count; ++i) (*used)[first + i] |= (present[i] & 1) != 0;
  }
}

std::size_t make_resident(std::byte* begin, std::size_t pages, const std::array<bool, k_most_pages>& used) noexcept {
  std::array<bool, k_most_pages> present{};
  mark_resident(begin, pages, &present);
  std::size_t made = 0;
  for (std::size_t i = 0; i < pages; ++i) {
    if (!used[i] || present[i]) continue;
    *reinterpret_cast<volatile char*>(begin + i * page_size()) = 0;  // ours until it is given back
    ++made;
  }
  return made * page_size();
}

std::size_t make_ready(Alloc alloc, Free free, std::size_t count) noexcept {
  std::array<std::byte*, k_buffers> taken{};
  for (std::size_t i = 0; i < count; ++i) {
    taken[i] = static_cast<std::byte*>(alloc(0));
    if (taken[i] == nullptr) count = i;
  }
  std::array<std::byte*, k_buffers> in_order = taken;
  std::sort(in_order.begin(), in_order.begin() + static_cast<std::ptrdiff_t>(count));
  // They begin at the same place of each mapping; neighbours may lie back to back.
  std::size_t bytes = k_most_bytes;
  for (std::size_t i = 1; i < count; ++i) {
    bytes = std::min(bytes, static_cast<std::size_t>(in_order[i] - in_order[i - 1]));
  }
  const auto misplaced = reinterpret_cast<std::uintptr_t>(in_order[0]) & (page_size() - 1);
  const std::size_t pages = std::min(bytes / page_size(), k_most_pages);
  std::array<bool, k_most_pages> used{};
  for (std::size_t i = 0; i < count; ++i) mark_resident(taken[i] - misplaced, pages, &used);
  std::size_t made = 0;
  for (std::size_t i = 0; i < count; ++i) made += make_resident(taken[i] - misplaced, pages, used);
  for (std::size_t i = 0; i < count; ++i) free(taken[i]);
  return made;
}

}  // namespace

BlasBuffers make_blas_buffers_ready() noexcept {
  BlasBuffers result;
  Names names;
  ::dl_iterate_phdr(collect, &names);
  if (names.count == 0) return result;
  const std::size_t count = std::min(threads_of_process(), k_buffers);
  if (count < 2) return result;
  for (std::size_t i = 0; i < names.count; ++i) {
    void* const library = ::dlopen(names.items[i], RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) continue;
    const auto alloc = own_symbol<Alloc>(library, names.items[i], "blas_memory_alloc");
    const auto free = own_symbol<Free>(library, names.items[i], "blas_memory_free");
    if (alloc != nullptr && free != nullptr) {
      ++result.libraries;
      result.buffers = count;
      result.bytes += make_ready(alloc, free, count);
    }
    ::dlclose(library);
  }
  return result;
}

}  // namespace rtpool::os
