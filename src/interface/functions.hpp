// The C interface (rtpool/rtpool.h) over the core: which pool a handle stands for, and the table's functions that know no Python.
//
// A handle is the address of the pool itself, private or shared, with the kind in its lowest bit: no memory and no lookup of its
// own, and equal pools have equal handles. Thread rule: any, as the core's. Cost: a test and a jump more than the core's.
#pragma once

#include <rtpool/rtpool.h>

#include <cstdint>

#include "pool/pool.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::interface {

inline constexpr std::uintptr_t k_shared_bit = 1;

inline rtpool_pool* handle_of(pool::Pool* pool) noexcept { return reinterpret_cast<rtpool_pool*>(pool); }
inline rtpool_pool* handle_of(shared::SharedPool* pool) noexcept {
  return reinterpret_cast<rtpool_pool*>(reinterpret_cast<std::uintptr_t>(pool) | k_shared_bit);
}

inline bool is_shared(const rtpool_pool* handle) noexcept { return (reinterpret_cast<std::uintptr_t>(handle) & k_shared_bit) != 0; }
inline pool::Pool* private_pool(rtpool_pool* handle) noexcept { return reinterpret_cast<pool::Pool*>(handle); }
inline shared::SharedPool* shared_pool(rtpool_pool* handle) noexcept {
  return reinterpret_cast<shared::SharedPool*>(reinterpret_cast<std::uintptr_t>(handle) - k_shared_bit);
}

// What rtpool.h promises of the members of that name.
rtpool_pool* retain_pool(rtpool_pool* handle) noexcept;
rtpool_pool* owner(const void* address) noexcept;

// Puts in the members from `allocate` to `owner` and from `retain_pool` to `trim`.
void fill_pool_functions(rtpool_api* api) noexcept;

}  // namespace rtpool::interface
