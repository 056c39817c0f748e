// The lock of a thread heap: biased to the thread whose heap it is.
//
// Thread rule: strangers never stop a heap while they hold a lock of the store's or are inside a heap of their own.
#pragma once

#include <cstdint>

#include "os/biased_lock.hpp"

namespace rtpool::blocks {

using HeapLock = os::BiasedLock;
using HeapLockGuard = os::BiasedLockGuard;
using os::k_revoked;
using os::k_symmetric;

// Further bits of `attention`.
inline constexpr std::uint32_t k_learning = 4;
inline constexpr std::uint32_t k_clearing = 8;  // zero_on_free
inline constexpr std::uint32_t k_resting = 16;  // nobody watches the pool: who uses it says so
inline constexpr std::uint32_t k_recording = 32;

}  // namespace rtpool::blocks
