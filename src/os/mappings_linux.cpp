// Linux: /proc/self/maps, dl_iterate_phdr, /proc/self/task/*/syscall, process_vm_readv.
#include <dirent.h>
#include <fcntl.h>
#include <link.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "os/mappings.hpp"
#include "os/text_file.hpp"
#include "os/thread_stack.hpp"

namespace rtpool::os {
namespace {

void set_name(Place* place, const char* name) noexcept {
  std::snprintf(place->name, sizeof place->name, "%s", name);
}

bool starts_with(const char* text, const char* prefix) noexcept {
  return std::strncmp(text, prefix, std::strlen(prefix)) == 0;
}

bool is_library(const char* path) noexcept {
  const char* const name = std::strrchr(path, '/');
  const char* const dot = std::strstr(name != nullptr ? name : path, ".so");
  return dot != nullptr && (dot[3] == '\0' || dot[3] == '.' || dot[3] == ' ');
}

struct ObjectSearch {
  std::uintptr_t address;
  Place place;
};

int search_object(dl_phdr_info* object, std::size_t, void* out) noexcept {
  auto* const search = static_cast<ObjectSearch*>(out);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = object->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    if (search->address - (object->dlpi_addr + header.p_vaddr) >= header.p_memsz) continue;
    search->place.base = object->dlpi_addr;
    search->place.region = (header.p_flags & PF_X) != 0 ? Region::code : Region::data;
    if (object->dlpi_name[0] != '\0') {
      set_name(&search->place, object->dlpi_name);
    } else {
      const ssize_t length = ::readlink("/proc/self/exe", search->place.name, sizeof search->place.name - 1);
      search->place.name[length > 0 ? length : 0] = '\0';
    }
    return 1;
  }
  return 0;
}

}  // namespace

bool peek(std::uintptr_t address, void* out, std::size_t bytes) noexcept {
  const int saved = errno;
  const iovec to{out, bytes};
  const iovec from{reinterpret_cast<void*>(address), bytes};
  const bool copied = ::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) == static_cast<ssize_t>(bytes);
  errno = saved;
  return copied;
}

Place find_loaded(std::uintptr_t address) noexcept {
  ObjectSearch search{address, {}};
  ::dl_iterate_phdr(search_object, &search);
  return search.place;
}

Mappings::~Mappings() {
  std::free(text_);
  std::free(mappings_);
  std::free(stacks_);
}

int Mappings::take() noexcept {
  std::free(mappings_);
  std::free(stacks_);
  mappings_ = nullptr;
  stacks_ = nullptr;
  count_ = stack_count_ = length_ = 0;
  asked_threads_ = false;
  musl_blocks_ = {};
  const int file = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  int error = 0;
  for (;;) {
    constexpr std::size_t k_least = std::size_t{64} << 10;
    if (capacity_ - length_ < 4096) {
      const std::size_t larger = capacity_ == 0 ? k_least : 2 * capacity_;
      char* const moved = static_cast<char*>(std::realloc(text_, larger));
      if (moved == nullptr) {
        error = ENOMEM;
        break;
      }
      text_ = moved;
      capacity_ = larger;
    }
    const ssize_t got = ::read(file, text_ + length_, capacity_ - length_ - 1);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    length_ += static_cast<std::size_t>(got);
  }
  ::close(file);
  if (error != 0) length_ = 0;
  if (text_ != nullptr) text_[length_] = '\0';
  return error;
}

// Cuts the text into lines: begin-end flags offset device inode   name
bool Mappings::parse() noexcept {
  if (mappings_ != nullptr) return true;
  if (length_ == 0) return false;
  const std::size_t lines = static_cast<std::size_t>(std::count(text_, text_ + length_, '\n'));
  mappings_ = static_cast<Mapping*>(std::calloc(lines + 1, sizeof(Mapping)));
  if (mappings_ == nullptr) return false;
  for (char* line = text_; *line != '\0' && count_ < lines;) {
    char* const end = std::strchr(line, '\n');
    if (end == nullptr) break;
    *end = '\0';
    Mapping& mapping = mappings_[count_++];
    char* at = nullptr;
    mapping.begin = std::strtoull(line, &at, 16);
    mapping.end = std::strtoull(at + 1, &at, 16);
    mapping.writable = at[2] == 'w';
    mapping.executable = at[3] == 'x';
    for (int field = 0; field < 4 && at != nullptr; ++field) at = std::strchr(at + 1, ' ');
    mapping.name = at == nullptr ? "" : at + std::strspn(at, " ");
    line = end + 1;
  }
  return true;
}

// Where each thread's stack is: the kernel tells a waiting thread's stack pointer.
void Mappings::ask_threads() noexcept {
  asked_threads_ = true;
  DIR* const tasks = ::opendir("/proc/self/task");
  if (tasks == nullptr) return;
  std::size_t capacity = 0;
  while (const dirent* const task = ::readdir(tasks)) {
    const auto thread = static_cast<pid_t>(std::strtol(task->d_name, nullptr, 10));
    if (thread <= 0) continue;
    char path[64];
    char text[256];
    std::snprintf(path, sizeof path, "/proc/self/task/%d/syscall", static_cast<int>(thread));
    if (!read_text_file(path, text, sizeof text)) continue;
    // "running", or the call, its six arguments, the stack pointer and the instruction
    const char* last = std::strrchr(text, ' ');
    if (last == nullptr) continue;
    const char* before = last;
    while (before > text && before[-1] != ' ') --before;
    const std::uintptr_t pointer = std::strtoull(before, nullptr, 16);
    if (pointer == 0) continue;
    if (stack_count_ == capacity) {
      capacity = capacity == 0 ? 64 : 2 * capacity;
      auto* const moved = static_cast<ThreadStack*>(std::realloc(stacks_, capacity * sizeof(ThreadStack)));
      if (moved == nullptr) break;
      stacks_ = moved;
    }
    stacks_[stack_count_++] = {thread, pointer};
  }
  ::closedir(tasks);
}

Place Mappings::name_file(const Mapping& mapping) const noexcept {
  Place place;
  set_name(&place, mapping.name);
  if (starts_with(mapping.name, "/dev/shm/") || starts_with(mapping.name, "/memfd:") ||
      starts_with(mapping.name, "/SYSV")) {
    place.region = Region::shared;
  } else if (starts_with(mapping.name, "/dev/zero")) {
    // Shared with children, by no name.
    place.region = Region::anonymous;
    place.name[0] = '\0';
  } else if (mapping.executable) {
    place.region = Region::code;
  } else {
    place.region = is_library(mapping.name) ? Region::data : Region::file;
  }
  return place;
}

Place Mappings::look_at(const Mapping& mapping, std::uintptr_t address) noexcept {
  Place place;
  place.region = Region::anonymous;
  if (!mapping.writable) return place;
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  if (own_stack(&lowest, &end) && address - lowest < end - lowest) {
    place.region = Region::stack;
    place.thread = static_cast<pid_t>(::syscall(SYS_gettid));  // glibc has a function for it since 2.30
    return place;
  }
#if defined(__GLIBC__)
  const bool of_libc = is_glibc_block(mapping.begin, mapping.end, address);
#else
  const bool of_libc = musl_blocks_.hold(mapping.begin, mapping.end, address);
#endif
  if (of_libc) {
    place.region = Region::libc_heap;
    return place;
  }
  if (!asked_threads_) ask_threads();
  for (std::size_t i = 0; i < stack_count_; ++i) {
    if (stacks_[i].pointer - mapping.begin >= mapping.end - mapping.begin) continue;
    place.region = Region::stack;
    place.thread = stacks_[i].thread;
    break;
  }
  return place;
}

Place Mappings::find(std::uintptr_t address, bool live) noexcept {
  Place place;
  if (!parse()) return place;
  const Mapping* const last = mappings_ + count_;
  const Mapping* const after = std::upper_bound(
      static_cast<const Mapping*>(mappings_), last, address,
      [](std::uintptr_t value, const Mapping& mapping) { return value < mapping.begin; });
  if (after == mappings_) return place;
  const Mapping& mapping = after[-1];
  if (address >= mapping.end) return place;
  const char* const name = mapping.name;
  if (name[0] == '/') return name_file(mapping);
  if (name[0] == '\0') {
    if (live) return look_at(mapping, address);
    place.region = Region::anonymous;
    return place;
  }
  if (std::strcmp(name, "[heap]") == 0) {
    place.region = Region::libc_heap;
    place.whole_heap = true;
  } else if (starts_with(name, "[stack")) {
    place.region = Region::stack;
    place.thread = ::getpid();
  } else if (starts_with(name, "[anon:") || starts_with(name, "[anon_shmem:")) {
    // Names by prctl(PR_SET_VMA). glibc tells its own where glibc.mem.decorate_maps is set.
    set_name(&place, std::strchr(name, ':') + 1);
    if (char* const frame = std::strrchr(place.name, ']')) *frame = '\0';
    const char* const inner = place.name + std::strspn(place.name, " ");
    place.region = starts_with(inner, "glibc: malloc")          ? Region::libc_heap
                   : starts_with(inner, "glibc: pthread stack") ? Region::stack
                                                                : Region::anonymous;
  } else {
    place.region = name[0] == '[' ? Region::kernel : Region::anonymous;
    set_name(&place, name);
  }
  return place;
}

}  // namespace rtpool::os
