// The kernel's services for shared memory as a kernel with larger pages would give them; see large_pages.hpp.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "large_pages.hpp"
#include "os/shared_memory.hpp"

namespace rtpool::test {

class LargePagesShared : public os::SharedMemory {
 public:
  std::size_t page_size() noexcept override { return kernel_page(); }
  int discard(int fd, std::size_t offset, std::size_t bytes) noexcept override {
    expect_whole_pages("discard", offset, bytes);
    return real_.discard(fd, offset, bytes);
  }
  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return count_resident(real_, address, bytes, out);
  }

  int create_nameless(const os::SegmentId& id, std::size_t bytes, std::size_t page, int* fd) noexcept override {
    return real_.create_nameless(id, bytes, page, fd);
  }
  int create_named(std::size_t bytes, int* fd) noexcept override { return real_.create_named(bytes, fd); }
  int publish(int fd, const char* name) noexcept override { return real_.publish(fd, name); }
  int open_named(const char* name, int* fd) noexcept override { return real_.open_named(name, fd); }
  int unlink_named(const char* name) noexcept override { return real_.unlink_named(name); }
  int for_each_name(bool (*visit)(void*, const char*), void* context) noexcept override {
    return real_.for_each_name(visit, context);
  }
  int open_of_process(const os::SegmentId& id, std::int32_t pid, int fd_there, bool (*holds)(void*, int), void* context,
                      int* fd) noexcept override {
    return real_.open_of_process(id, pid, fd_there, holds, context, fd);
  }
  int set_aside(int fd, std::size_t bytes) noexcept override { return real_.set_aside(fd, bytes); }
  int try_lock_file(int fd) noexcept override { return real_.try_lock_file(fd); }
  int duplicate(int fd, int* out) noexcept override { return real_.duplicate(fd, out); }
  // Of larger pages each has memory of which any part has.
  int describe(int fd, os::SegmentFile* out) noexcept override {
    const int error = real_.describe(fd, out);
    if (error != 0) return error;
    std::size_t counted = 0;  // up to here
    out->held = 0;
    for (off_t data = 0; (data = ::lseek(fd, data, SEEK_DATA)) >= 0;) {
      const off_t hole = ::lseek(fd, data, SEEK_HOLE);
      if (hole < 0) return errno;
      const std::size_t begin = std::max(counted, static_cast<std::size_t>(data) / kernel_page() * kernel_page());
      counted = (static_cast<std::size_t>(hole) + kernel_page() - 1) / kernel_page() * kernel_page();
      if (counted > begin) out->held += counted - begin;
      data = hole;
    }
    return 0;
  }
  int held_past_end(int fd, std::size_t bytes, std::size_t* out) noexcept override {
    const std::size_t in_last = bytes % kernel_page();
    *out = in_last != 0 && ::lseek(fd, static_cast<off_t>(bytes - in_last), SEEK_DATA) >= 0 ? kernel_page() - in_last : 0;
    return 0;
  }
  void close(int fd) noexcept override { real_.close(fd); }
  int map(int fd, std::size_t bytes, std::size_t page, bool writable, void** out) noexcept override {
    return real_.map(fd, bytes, page, writable, out);
  }
  int unmap(void* address, std::size_t bytes) noexcept override { return real_.unmap(address, bytes); }
  int prefault(void* address, std::size_t bytes, bool writable) noexcept override {
    return real_.prefault(address, bytes, writable);
  }
  int lock(void* address, std::size_t bytes) noexcept override { return real_.lock(address, bytes); }
  int advise_huge(void* address, std::size_t bytes) noexcept override { return real_.advise_huge(address, bytes); }
  char transparent_huge_pages() noexcept override { return real_.transparent_huge_pages(); }
  std::size_t lockable_memory() noexcept override { return real_.lockable_memory(); }
  std::uint32_t user() noexcept override { return real_.user(); }
  std::int32_t process_id() noexcept override { return real_.process_id(); }
  int identify(std::int32_t pid, os::ProcessIdentity* out) noexcept override { return real_.identify(pid, out); }
  os::Liveness liveness(std::int32_t pid, const os::ProcessIdentity& identity) noexcept override {
    return real_.liveness(pid, identity);
  }
  std::uint64_t seconds() noexcept override { return real_.seconds(); }
  int random(void* out, std::size_t bytes) noexcept override { return real_.random(out, bytes); }

 private:
  os::SharedMemory& real_ = os::shared_memory();
};

// What tests give a shared pool that is to use the machine's memory.
inline os::SharedMemory& machine_shared_memory() noexcept {
  static LargePagesShared& large = *new LargePagesShared;
  return kernel_page() > os::memory().page_size() ? static_cast<os::SharedMemory&>(large) : os::shared_memory();
}

}  // namespace rtpool::test
