// Linux: memfd_create with seals, futexes that are not private to a process.
#include "os/helper_thread.hpp"
#include "os/shared_page.hpp"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "os/errno.hpp"

namespace rtpool::os {
namespace {

long wait_on(const void* word, std::uint32_t seen, Nanoseconds most) noexcept {
  const timespec span{static_cast<time_t>(most / 1'000'000'000), static_cast<long>(most % 1'000'000'000)};
  return ::syscall(SYS_futex, word, FUTEX_WAIT, seen, most == k_for_ever ? nullptr : &span, nullptr, 0);
}

// The page of the file that holds the word, mapped for as long as `function` takes.
template <class Function>
int with_word(int fd, std::size_t offset, Function&& function) noexcept {
  if (offset % sizeof(std::uint32_t) != 0) return EINVAL;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = offset / page * page;
  void* const address = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(begin));
  if (address == MAP_FAILED) return errno;
  const int error = function(static_cast<char*>(address) + (offset - begin));
  (void)::munmap(address, page);
  return error;
}

}  // namespace

int open_shared_page(const char* name, std::size_t bytes, int* fd, void** address) noexcept {
  const KeepErrno keep;
  const int made = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made < 0) return errno;
  int error = result(::fchmod(made, S_IRUSR | S_IWUSR));
  if (error == 0) error = result(::ftruncate(made, static_cast<off_t>(bytes)));
  if (error == 0) error = result(::fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
  void* mapped = MAP_FAILED;
  if (error == 0 && (mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0)) == MAP_FAILED) error = errno;
  if (error == 0) error = result(::madvise(mapped, bytes, MADV_DONTFORK));
  if (error != 0) {
    if (mapped != MAP_FAILED) (void)::munmap(mapped, bytes);
    (void)::close(made);
    return error;
  }
  *fd = made;
  *address = mapped;
  return 0;
}

void close_shared_page(int fd, void* address, std::size_t bytes) noexcept {
  const KeepErrno keep;
  if (address != nullptr) (void)::munmap(address, bytes);
  (void)::close(fd);
}

void sleep_while_shared(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept {
  const KeepErrno keep;
  (void)wait_on(&word, seen, most);
}

void wake_shared(const std::atomic<std::uint32_t>& word) noexcept {
  const KeepErrno keep;
  (void)::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

int wake_in_file(int fd, std::size_t offset) noexcept {
  const KeepErrno keep;
  return with_word(fd, offset, [](void* word) {
    return ::syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0) < 0 ? errno : 0;
  });
}

int sleep_in_file(int fd, std::size_t offset, std::uint32_t seen, Nanoseconds most) noexcept {
  const KeepErrno keep;
  return with_word(fd, offset, [=](void* word) { return wait_on(word, seen, most) == 0 || errno == EAGAIN ? 0 : errno; });
}

}  // namespace rtpool::os
