// The OS contract for pages that a process shows to others, which open them through /proc, and for words in them by which they
// wake each other. The file has no name in any file system and goes with the last process that has it open.
//
// Every function returns an errno value, 0 for success, and leaves `errno` alone. Thread rule: any thread. Cost: kernel calls.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

// `name` is what /proc/PID/fd shows behind "/memfd:". The size is sealed; a forked child does not have the mapping, and a program
// that replaces this one does not have the descriptor. The pages read as zeros.
int open_shared_page(const char* name, std::size_t bytes, int* fd, void** address) noexcept;
// `address` may be nullptr: in a forked child.
void close_shared_page(int fd, void* address, std::size_t bytes) noexcept;

// As sleep_while and wake_sleepers (helper_thread.hpp), also between processes.
void sleep_while_shared(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept;
void wake_shared(const std::atomic<std::uint32_t>& word) noexcept;

// The same for a word in a file that somebody else made. Only the kernel looks at it: EFAULT where the file ends before it, never
// a signal. `sleep_in_file`: 0 when woken or the word is another already, ETIMEDOUT.
int wake_in_file(int fd, std::size_t offset) noexcept;
int sleep_in_file(int fd, std::size_t offset, std::uint32_t seen, Nanoseconds most) noexcept;

}  // namespace rtpool::os
