#include "interface/functions.hpp"

#include <cstring>

#include "base/bits.hpp"
#include "blocks/size_class.hpp"
#include "os/memory.hpp"

namespace rtpool::interface {
namespace {

// Private pools first: they are what the nanoseconds are counted for.
void* allocate(rtpool_pool* handle, std::size_t size) {
  return RTPOOL_LIKELY(!is_shared(handle)) ? private_pool(handle)->allocate(size) : shared_pool(handle)->allocate(size);
}

void* allocate_zeroed(rtpool_pool* handle, std::size_t size) {
  return RTPOOL_LIKELY(!is_shared(handle)) ? private_pool(handle)->allocate_zeroed(size)
                                           : shared_pool(handle)->allocate_zeroed(size);
}

void* allocate_aligned_shared(shared::SharedPool& pool, std::size_t size, std::size_t alignment) noexcept {
  if (!base::is_power_of_two(alignment) || alignment > os::k_page_size) return nullptr;
  // In either kind of pool what is larger begins on a page.
  void* const block = pool.allocate(alignment <= blocks::k_unit || size > blocks::k_largest_small ? size : blocks::k_largest_small + 1);
  if (RTPOOL_LIKELY(reinterpret_cast<std::uintptr_t>(block) % alignment == 0)) return block;
  pool.release(block);  // the fallback's
  return nullptr;
}

void* allocate_aligned(rtpool_pool* handle, std::size_t size, std::size_t alignment) {
  return RTPOOL_LIKELY(!is_shared(handle)) ? private_pool(handle)->allocate_aligned(size, alignment)
                                           : allocate_aligned_shared(*shared_pool(handle), size, alignment);
}

void* resize(rtpool_pool* handle, void* block, std::size_t size) {
  return RTPOOL_LIKELY(!is_shared(handle)) ? private_pool(handle)->resize(block, size) : shared_pool(handle)->resize(block, size);
}

void release(rtpool_pool* handle, void* block, std::size_t size) {
  if (RTPOOL_LIKELY(!is_shared(handle))) return private_pool(handle)->release(block, size);
  shared_pool(handle)->release(block);
}

std::size_t usable_size(rtpool_pool* handle, const void* block) {
  return is_shared(handle) ? shared_pool(handle)->usable_size(block) : private_pool(handle)->usable_size(block);
}

rtpool_pool* owner_of(const void* address) { return owner(address); }

rtpool_pool* retain(rtpool_pool* handle) { return retain_pool(handle); }

void release_pool(rtpool_pool* handle) {
  if (handle == nullptr) return;
  if (is_shared(handle)) {
    shared_pool(handle)->drop_reference();
  } else {
    private_pool(handle)->drop_reference();
  }
}

const char* pool_name(rtpool_pool* handle) {
  return is_shared(handle) ? shared_pool(handle)->name() : private_pool(handle)->name();
}

std::size_t get_stats(rtpool_pool* handle, rtpool_stats* out, std::size_t size) {
  const pool::Stats stats = is_shared(handle) ? shared_pool(handle)->stats().common : private_pool(handle)->stats();
  const rtpool_stats known{
      .current_bytes = stats.current_bytes,
      .current_count = stats.current_count,
      .peak_bytes = stats.peak_bytes,
      .peak_count = stats.peak_count,
      .total_bytes = stats.total_bytes,
      .total_count = stats.total_count,
      .requested_bytes = stats.requested_bytes,
      .capacity_bytes = stats.capacity_bytes,
      .resident_bytes = stats.resident_bytes,
      .hits = stats.hits,
      .misses = stats.misses,
      .growths = stats.growths,
      .kernel_calls = stats.kernel_calls,
      .returned_bytes = stats.returned_bytes,
      .fallbacks = stats.fallbacks,
      .failures = stats.failures,
      .remote_frees = stats.remote_frees,
      .misuses = stats.misuses,
      .largest_free_bytes = stats.largest_free_bytes,
      .fallback_count = stats.fallback_count,
      .object_bytes = stats.object_bytes,
      .object_count = stats.object_count,
      .object_peak_bytes = stats.object_peak_bytes,
      .object_kept_bytes = stats.object_kept_bytes,
      .object_hits = stats.object_hits,
      .object_misses = stats.object_misses,
      .object_fallbacks = stats.object_fallbacks,
  };
  const std::size_t common = size < sizeof known ? size : sizeof known;
  std::memcpy(out, &known, common);
  std::memset(reinterpret_cast<char*>(out) + common, 0, size - common);
  return sizeof known;
}

std::size_t trim(rtpool_pool* handle, std::uint64_t unused_for) {
  if (is_shared(handle)) return shared_pool(handle)->trim();
  if (unused_for == 0) return private_pool(handle)->trim();
  return private_pool(handle)->trim(static_cast<os::Nanoseconds>(unused_for > INT64_MAX ? INT64_MAX : unused_for));
}

}  // namespace

rtpool_pool* retain_pool(rtpool_pool* handle) noexcept {
  if (handle == nullptr) return nullptr;
  if (is_shared(handle)) {
    shared_pool(handle)->add_reference();
  } else {
    private_pool(handle)->add_reference();
  }
  return handle;
}

rtpool_pool* owner(const void* address) noexcept {
  if (pool::Pool* const pool = pool::Pool::find_owner(address); pool != nullptr) return handle_of(pool);
  shared::SharedPool* const pool = shared::SharedPool::find_block(address);
  return pool != nullptr ? handle_of(pool) : nullptr;
}

void fill_pool_functions(rtpool_api* api) noexcept {
  api->allocate = allocate;
  api->allocate_zeroed = allocate_zeroed;
  api->allocate_aligned = allocate_aligned;
  api->resize = resize;
  api->release = release;
  api->usable_size = usable_size;
  api->owner = owner_of;
  api->retain_pool = retain;
  api->release_pool = release_pool;
  api->pool_name = pool_name;
  api->get_stats = get_stats;
  api->trim = trim;
}

}  // namespace rtpool::interface
