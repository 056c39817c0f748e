// Linux: dl_iterate_phdr and MADV_POPULATE_READ / _WRITE.
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "base/bits.hpp"
#include "os/forked_pages.hpp"
#include "os/kernel_pages.hpp"
#include "os/program_pages.hpp"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace rtpool::os {
namespace {

struct Segment {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool writable = false;
};

// Programs with more parts than this get the first ones.
constexpr std::size_t k_segments = 4096;

struct Segments {
  std::array<Segment, k_segments> items;
  std::size_t count = 0;
  std::uint64_t loaded = 0;  // objects ever loaded, and one: musl counts those after the program's start; 0 is not known
};

// What the last complete call saw: how many objects had been loaded, and how often the process had forked.
std::atomic<std::uint64_t> g_seen_loaded{0};
std::atomic<unsigned> g_seen_forks{0};

// Parts of a writable segment that the loader has made read-only after its relocations end here.
std::uintptr_t end_of_relocated(const dl_phdr_info& object) noexcept {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = object.dlpi_phdr[i];
    if (header.p_type == PT_GNU_RELRO) return object.dlpi_addr + header.p_vaddr + header.p_memsz;
  }
  return 0;
}

void add(Segments* segments, std::uintptr_t begin, std::uintptr_t end, bool writable) noexcept {
  if (begin < end && segments->count < k_segments) segments->items[segments->count++] = {begin, end, writable};
}

int collect_segments(dl_phdr_info* object, std::size_t size, void* out) noexcept {
  auto* const segments = static_cast<Segments*>(out);
  if (size >= offsetof(dl_phdr_info, dlpi_subs)) segments->loaded = object->dlpi_adds + 1;
  const std::uintptr_t relocated = end_of_relocated(*object);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = object->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_R) == 0) continue;
    const bool writable = (header.p_flags & PF_W) != 0;
    const std::uintptr_t begin = base::align_down(object->dlpi_addr + header.p_vaddr, page_size());
    const std::uintptr_t end = base::align_up(object->dlpi_addr + header.p_vaddr + header.p_memsz, page_size());
    // Relocations have touched what they made read-only but for the pages that needed none. A page of which that is a part
    // stays writable: so it ends in libraries that were linked for smaller pages than the kernel's.
    const std::uintptr_t read_only = writable ? std::clamp(base::align_down(relocated, page_size()), begin, end) : end;
    add(segments, begin, read_only, false);
    add(segments, read_only, end, true);
  }
  return 0;
}

}  // namespace

ProgramPages make_program_resident() noexcept {
  ProgramPages result;
  // Some 100 KiB: too much for the stack of a thread. Two threads at once would write the same into it.
  static Segments segments;
  static std::atomic_flag busy = ATOMIC_FLAG_INIT;
  if (busy.test_and_set(std::memory_order_acquire)) return result;
  segments.count = 0;
  // The loader's lock is held during this call alone, not while pages come in from the disk.
  ::dl_iterate_phdr(collect_segments, &segments);
  const unsigned known_forks = forks();
  if (segments.loaded == 0 || segments.loaded != g_seen_loaded.load() || known_forks != g_seen_forks.load()) {
    for (std::size_t i = 0; i < segments.count; ++i) {
      const Segment& segment = segments.items[i];
      const std::size_t bytes = segment.end - segment.begin;
      // A library that was unloaded meanwhile gives ENOMEM and nothing else.
      if (::madvise(reinterpret_cast<void*>(segment.begin), bytes,
                    segment.writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) {
        result.bytes += bytes;
      } else if (result.error == 0) {
        result.error = errno;
      }
    }
    g_seen_loaded.store(segments.loaded);
    g_seen_forks.store(known_forks);
  }
  busy.clear(std::memory_order_release);
  return result;
}

}  // namespace rtpool::os
