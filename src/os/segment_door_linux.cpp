#include "os/segment_door.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "os/errno.hpp"
#include "os/helper_thread.hpp"

namespace rtpool::os {
namespace {

constexpr unsigned k_doors = 64;
constexpr time_t k_patience_s = 2;

// Taken by compare-and-swap on `listener`; the thread at the door gives it back. Plain words, as a child's are reset.
constexpr int k_free = 0;
constexpr int k_being_set_up = -1;
struct Door {
  int listener = k_free;
  SegmentId id;
  int fd = -1;
};
Door g_doors[k_doors];

int listener_of(const Door& door) noexcept { return __atomic_load_n(&door.listener, __ATOMIC_ACQUIRE); }
void set_listener(Door& door, int listener) noexcept { __atomic_store_n(&door.listener, listener, __ATOMIC_RELEASE); }

socklen_t name_of(const SegmentId& id, std::int32_t pid, sockaddr_un* out) noexcept {
  std::memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  char* const text = out->sun_path + 1;  // the first byte stays 0: a name in no file system
  constexpr std::size_t room = sizeof out->sun_path - 1;
  auto used = static_cast<std::size_t>(std::snprintf(text, room, "rtpool-%d-", pid));
  for (const std::uint8_t byte : id.bytes) used += static_cast<std::size_t>(std::snprintf(text + used, room - used, "%02x", byte));
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + used);
}

bool of_this_user(int socket) noexcept {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == ::geteuid();
}

void set_patience(int socket) noexcept {
  const timeval patience{k_patience_s, 0};
  (void)::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  (void)::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

// One byte and the descriptor beside it.
struct Message {
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr head{};
  Message() noexcept {
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    head.msg_control = control;
    head.msg_controllen = sizeof control;
  }
};

void answer(int socket, int fd) noexcept {
  Message message;
  cmsghdr* const beside = CMSG_FIRSTHDR(&message.head);
  beside->cmsg_level = SOL_SOCKET;
  beside->cmsg_type = SCM_RIGHTS;
  beside->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(beside), &fd, sizeof fd);
  (void)::sendmsg(socket, &message.head, MSG_NOSIGNAL);
}

void stand_at(void* argument) noexcept {
  auto* const door = static_cast<Door*>(argument);
  const int listener = listener_of(*door);
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {
      if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE || errno == ENFILE) continue;
      break;  // shut
    }
    set_patience(socket);
    if (of_this_user(socket)) answer(socket, door->fd);
    ::close(socket);
  }
  ::close(door->fd);
  ::close(listener);
  set_listener(*door, k_free);
}

// By all processes of this user: root's others may what it may.
bool may_be_looked_at() noexcept {
  if (::prctl(PR_GET_DUMPABLE) != 1) return false;
  if (::geteuid() == 0) return true;
  __user_cap_header_struct who{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  return ::syscall(SYS_capget, &who, sets) != 0 || (sets[0].permitted | sets[1].permitted) == 0;
}

Door* free_door() noexcept {
  for (Door& door : g_doors) {
    int expected = k_free;
    if (__atomic_compare_exchange_n(&door.listener, &expected, k_being_set_up, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
      return &door;
    }
  }
  return nullptr;
}

}  // namespace

int offer_segment(const SegmentId& id, int fd) noexcept {
  const KeepErrno keep;
  if (may_be_looked_at()) return 0;
  Door* const door = free_door();
  if (door == nullptr) return ENOSPC;
  const auto fail = [door](int error, int first, int second) noexcept {
    if (first >= 0) ::close(first);
    if (second >= 0) ::close(second);
    set_listener(*door, k_free);
    return error;
  };
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return fail(errno, -1, -1);
  sockaddr_un name;
  const socklen_t length = name_of(id, ::getpid(), &name);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&name), length) != 0 || ::listen(listener, 64) != 0) {
    return fail(errno, listener, -1);
  }
  const int mine = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (mine < 0) return fail(errno, listener, -1);
  door->id = id;
  door->fd = mine;
  set_listener(*door, listener);
  const int error = HelperThread::start_detached(stand_at, door);
  return error == 0 ? 0 : fail(error, listener, mine);
}

void withdraw_segment(const SegmentId& id) noexcept {
  const KeepErrno keep;
  for (const Door& door : g_doors) {
    const int listener = listener_of(door);
    if (listener > 0 && door.id == id) (void)::shutdown(listener, SHUT_RDWR);
  }
}

void forget_offers_after_fork() noexcept {
  const KeepErrno keep;
  for (Door& door : g_doors) {
    if (door.listener > 0) {
      ::close(door.listener);
      ::close(door.fd);
    }
    door.listener = k_free;
  }
}

int ask_for_segment(const SegmentId& id, std::int32_t pid, int* fd) noexcept {
  const KeepErrno keep;
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return errno;
  set_patience(socket);
  sockaddr_un name;
  const socklen_t length = name_of(id, pid, &name);
  Message message;
  int error = 0;
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&name), length) != 0) error = errno;
  else if (!of_this_user(socket)) error = EPERM;
  else if (::recvmsg(socket, &message.head, MSG_CMSG_CLOEXEC) != 1) error = errno != 0 ? errno : EAGAIN;
  ::close(socket);
  if (error != 0) return error;
  const cmsghdr* const beside = CMSG_FIRSTHDR(&message.head);
  if (beside == nullptr || beside->cmsg_type != SCM_RIGHTS || beside->cmsg_len != CMSG_LEN(sizeof *fd)) return EAGAIN;
  std::memcpy(fd, CMSG_DATA(beside), sizeof *fd);
  return 0;
}

}  // namespace rtpool::os
