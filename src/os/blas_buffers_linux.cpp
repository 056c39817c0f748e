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
#include <initializer_list>

#include "os/kernel_pages.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_libraries = 8;
constexpr std::size_t k_buffers = 32;
// Of each buffer it looks at no more than this, the least that OpenBLAS maps.
constexpr std::size_t k_most_bytes = std::size_t{32} << 20;
constexpr std::size_t k_most_pages = k_most_bytes / 4096;
// What products and factorisations of up to 768 rows and columns reach, in one thread and in several, with the block sizes of
// the processors of the last fifteen years: up to 2.9 MiB with float64, 4.0 MiB with complex128. Products with which one would
// touch it have to be large: in one thread a product with few rows packs all columns into the same few pages.
constexpr std::size_t k_packed_bytes = std::size_t{4} << 20;

struct Names {
  std::array<const char*, k_libraries> items;
  std::size_t count = 0;
};

int collect_names(dl_phdr_info* object, std::size_t, void* out) noexcept {
  auto* const names = static_cast<Names*>(out);
  const char* const folder = std::strrchr(object->dlpi_name, '/');
  if (folder == nullptr || names->count == k_libraries) return 0;
  for (const char* const part : {"blas", "mkl_", "blis", "atlas"}) {
    if (std::strstr(folder, part) == nullptr) continue;
    names->items[names->count++] = object->dlpi_name;  // as long as the library is loaded
    break;
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

// One copy of OpenBLAS, held while its buffers are looked at.
struct Library {
  void* handle = nullptr;
  Alloc alloc = nullptr;
  Free free = nullptr;
  std::array<std::byte*, k_buffers> taken{};  // where each one's mapping begins
  std::size_t count = 0;
  std::size_t pages = 0;  // of each
  std::size_t misplaced = 0;  // how far behind the begin of a page they begin
};

// False: no OpenBLAS that lets buffers be asked for.
bool open(const char* file, Library* library) noexcept {
  library->handle = ::dlopen(file, RTLD_LAZY | RTLD_NOLOAD);
  if (library->handle == nullptr) return false;
  library->alloc = own_symbol<Alloc>(library->handle, file, "blas_memory_alloc");
  library->free = own_symbol<Free>(library->handle, file, "blas_memory_free");
  if (library->alloc != nullptr && library->free != nullptr) return true;
  ::dlclose(library->handle);
  return false;
}

void take_buffers(Library* library, std::size_t count) noexcept {
  for (; library->count < count; ++library->count) {
    auto* const buffer = static_cast<std::byte*>(library->alloc(0));
    if (buffer == nullptr) break;
    library->taken[library->count] = buffer;
  }
  if (library->count == 0) return;
  std::array<std::byte*, k_buffers> in_order = library->taken;
  std::sort(in_order.begin(), in_order.begin() + static_cast<std::ptrdiff_t>(library->count));
  // They begin at the same place of each mapping; neighbours may lie back to back.
  std::size_t bytes = k_most_bytes;
  for (std::size_t i = 1; i < library->count; ++i) {
    bytes = std::min(bytes, static_cast<std::size_t>(in_order[i] - in_order[i - 1]));
  }
  library->misplaced = reinterpret_cast<std::uintptr_t>(in_order[0]) & (page_size() - 1);
  library->pages = std::min(bytes / page_size(), k_most_pages);
}

}  // namespace

BlasBuffers make_blas_buffers_ready() noexcept {
  BlasBuffers result;
  Names names;
  ::dl_iterate_phdr(collect_names, &names);
  if (names.count == 0) return result;
  const std::size_t count = std::clamp(threads_of_process(), std::size_t{1}, k_buffers);
  std::array<Library, k_libraries> libraries;
  for (std::size_t i = 0; i < names.count; ++i) {
    if (open(names.items[i], &libraries[result.libraries])) ++result.libraries;
  }
  std::array<bool, k_most_pages> used{};
  for (std::size_t l = 0; l < result.libraries; ++l) {
    Library& library = libraries[l];
    take_buffers(&library, count);
    for (std::size_t i = 0; i < library.count; ++i) {
      mark_resident(library.taken[i] - library.misplaced, library.pages, &used);
    }
  }
  // A program that has not called BLAS so far is not made to hold more.
  if (std::find(used.begin(), used.end(), true) != used.end()) {
    std::fill_n(used.begin(), k_packed_bytes / page_size(), true);
  }
  for (std::size_t l = 0; l < result.libraries; ++l) {
    Library& library = libraries[l];
    result.buffers = std::max(result.buffers, library.count);
    for (std::size_t i = 0; i < library.count; ++i) {
      result.bytes += make_resident(library.taken[i] - library.misplaced, library.pages, used);
    }
    for (std::size_t i = 0; i < library.count; ++i) library.free(library.taken[i]);
    ::dlclose(library.handle);
  }
  return result;
}

BlasLibraries blas_libraries() noexcept {
  BlasLibraries result;
  Names names;
  ::dl_iterate_phdr(collect_names, &names);
  result.loaded = names.count;
  for (std::size_t i = 0; i < names.count; ++i) {
    Library library;
    if (!open(names.items[i], &library)) continue;
    ++result.with_shared_buffers;
    ::dlclose(library.handle);
  }
  return result;
}

}  // namespace rtpool::os
