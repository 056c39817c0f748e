// The OS contract for memory that several processes map, and for knowing whether those processes still live.
//
// Every function that can fail returns an errno value, 0 for success, and leaves `errno` alone. Thread rule: any thread.
// Cost: at least one kernel call each, so none belongs on a hit path. Tests replace this class by a fake.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

// Names of segments are letters, digits, '.', '-' and '_', not beginning with '.', at most this long.
inline constexpr std::size_t k_segment_name_length = 200;

struct SegmentId {
  std::uint8_t bytes[16] = {};
  bool operator==(const SegmentId&) const = default;
};

// What the kernel says about an open segment.
struct SegmentFile {
  std::size_t bytes = 0;
  std::size_t held = 0;     // what has memory behind it, in whole pages of the kernel, huge ones as well: `held_past_end`
  std::size_t page = 4096;  // or that of explicit huge pages, as `create_nameless` takes it
  std::uint32_t user = 0;
  std::uint32_t mode = 0;   // permission bits
  bool regular = false;     // a memory file or a regular file
  bool sealed = false;      // can neither shrink nor grow any more
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// Tells two processes apart that had the same pid, and a program from the one that replaced it by exec.
struct ProcessIdentity {
  std::uint64_t start = 0;      // clock ticks since boot at which the process began
  std::uint64_t image = 0;      // address of its stack: a fork keeps it, an exec changes it; 0 where it may not be read
  std::uint64_t namespace_ = 0; // of pids: numbers of another namespace say nothing here
};

enum class Liveness : std::uint8_t { dead, alive, unknown };

class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  virtual ~SharedMemory() = default;

  // Bytes of a page of the kernel. Offsets and sizes given to `discard` are multiples of it.
  virtual std::size_t page_size() noexcept = 0;

  // A memory file without a name in the file system, of fixed size (sealed), that reads as zeros. `page`: 4096, or 2 MiB
  // or 1 GiB for explicit huge pages: ENOMEM when the kernel does not have them.
  virtual int create_nameless(const SegmentId& id, std::size_t bytes, std::size_t page, int* fd) noexcept = 0;
  // A file of mode 0600 that nobody can find until `publish` gives it a name.
  virtual int create_named(std::size_t bytes, int* fd) noexcept = 0;
  // EEXIST when the name is taken; the name appears with everything written before, or not at all.
  virtual int publish(int fd, const char* name) noexcept = 0;
  virtual int open_named(const char* name, int* fd) noexcept = 0;
  virtual int unlink_named(const char* name) noexcept = 0;
  // Calls `visit(context, name)` for every published name until it answers false.
  virtual int for_each_name(bool (*visit)(void* context, const char* name), void* context) noexcept = 0;
  // Opens the segment `id`, nameless or not, through a process of the same user that has it open: `pid` and its descriptor
  // `fd_there` are tried first (0 for unknown), then the published names, then every process that may be looked at. A
  // process that may not be looked at is asked, if it offers the segment (segment_door.hpp). A memory file is known by its
  // name; for others `holds(context, fd)` says whether it is the one. ENOENT: none has it; EACCES: `pid` lives and may
  // not be looked at, and nobody else has it.
  virtual int open_of_process(const SegmentId& id, std::int32_t pid, int fd_there, bool (*holds)(void* context, int fd),
                              void* context, int* fd) noexcept = 0;
  // Sets the memory aside: a full file system is an error here (ENOSPC) instead of a bus error at some later store.
  virtual int set_aside(int fd, std::size_t bytes) noexcept = 0;
  // An exclusive lock on the file, gone with its last holder; EWOULDBLOCK: another has it.
  virtual int try_lock_file(int fd) noexcept = 0;
  virtual int duplicate(int fd, int* out) noexcept = 0;
  virtual int describe(int fd, SegmentFile* out) noexcept = 0;
  // Of a segment of `bytes` bytes, not of explicit huge pages: what of `held` lies past its end, as a part of the kernel's last
  // page, or of a transparent huge one. Three kernel calls, none where the end is one of a huge page.
  virtual int held_past_end(int fd, std::size_t bytes, std::size_t* out) noexcept = 0;
  virtual void close(int fd) noexcept = 0;

  // Maps the whole segment, aligned to its pages and to 2 MiB. The kernel refuses writes through a mapping that is not `writable`.
  virtual int map(int fd, std::size_t bytes, std::size_t page, bool writable, void** out) noexcept = 0;
  virtual int unmap(void* address, std::size_t bytes) noexcept = 0;
  // Makes every page of a mapping resident and mapped. EFAULT: no memory behind it could be had; ENOSYS: this kernel
  // cannot (before Linux 5.14). Never a signal.
  virtual int prefault(void* address, std::size_t bytes, bool writable) noexcept = 0;
  virtual int lock(void* address, std::size_t bytes) noexcept = 0;
  virtual int advise_huge(void* address, std::size_t bytes) noexcept = 0;
  // Gives the memory behind a range back, for every process; it reads as zeros afterwards.
  virtual int discard(int fd, std::size_t offset, std::size_t bytes) noexcept = 0;
  // The range may begin and end anywhere.
  virtual int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept = 0;

  // Transparent huge pages of 2 MiB for shared memory: 'a'lways, 'w'ithin_size, 'm' (advise), 'n'ever or deny, '?' the kernel
  // has none of that size.
  virtual char transparent_huge_pages() noexcept = 0;
  virtual std::size_t lockable_memory() noexcept = 0;
  virtual std::uint32_t user() noexcept = 0;
  virtual std::int32_t process_id() noexcept = 0;
  virtual int identify(std::int32_t pid, ProcessIdentity* out) noexcept = 0;
  // Whether `pid` is still the process that `identity` was taken of. A zombie is dead. unknown: another namespace.
  virtual Liveness liveness(std::int32_t pid, const ProcessIdentity& identity) noexcept = 0;
  // Seconds the machine has run since boot, the same clock in all processes of it.
  virtual std::uint64_t seconds() noexcept = 0;
  virtual int random(void* out, std::size_t bytes) noexcept = 0;
};

// The kernel itself. One instance, never destroyed.
SharedMemory& shared_memory() noexcept;

// Whether `name` can name a segment.
bool is_segment_name(const char* name) noexcept;

}  // namespace rtpool::os
