// Construction and the end of a pool.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/bits.hpp"
#include "base/watch.hpp"
#include "os/fault_trap.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"
#include "trace/recorder.hpp"

namespace rtpool::pool {
namespace {

constexpr Fallback k_libc{std::malloc, std::calloc, std::realloc, std::free, std::aligned_alloc};

Step step_of(pages::GrowthStep step) noexcept {
  switch (step) {
    case pages::GrowthStep::none: return Step::none;
    case pages::GrowthStep::reserve: return Step::reserve;
    case pages::GrowthStep::commit:
    case pages::GrowthStep::limit: return Step::commit;
    case pages::GrowthStep::prefault: return Step::prefault;
    case pages::GrowthStep::lock: return Step::lock;
    case pages::GrowthStep::huge_pages: return Step::huge_pages;
    case pages::GrowthStep::metadata: return Step::metadata;
  }
  return Step::none;
}

pages::GrowthOptions growth_options(const Options& options, std::size_t limit) noexcept {
  pages::GrowthOptions growth;
  growth.limit = limit;
  growth.prefault = options.prefault;
  growth.lock = options.lock;
  growth.transparent_huge = options.huge_pages == HugePages::transparent;
  growth.explicit_huge = options.huge_pages == HugePages::explicit_2mib   ? os::k_huge_page_size
                         : options.huge_pages == HugePages::explicit_1gib ? os::k_gigantic_page_size
                                                                          : 0;
  growth.strict = options.strict;
  return growth;
}

}  // namespace

CreateResult Pool::create(const Options& options, os::Memory& memory, const Fallback* fallback) noexcept {
  CreateResult result;
  result.asked = options.size;
  std::size_t limit = options.limit;
  if (limit == k_no_limit) {
    limit = options.when_full != WhenFull::grow && options.size != 0 ? options.size : memory.physical_memory();
  }
  if (limit == 0) limit = std::size_t{1} << 40;
  if (options.size > limit && options.limit == k_no_limit) limit = options.size;  // more than physical memory: the kernel decides
  if (options.size > limit || limit > SIZE_MAX / 2) {
    result.step = Step::arguments;
    result.error = EINVAL;
    result.got = limit;
    return result;
  }
  const std::size_t page = memory.page_size();
  limit = base::align_up(limit, page);

  void* address = nullptr;
  const std::size_t bytes = base::align_up(sizeof(PoolImpl), page);
  result.error = memory.reserve(bytes, page, &address);
  if (result.error == 0) result.error = memory.commit(address, bytes);
  if (result.error != 0) {
    if (address != nullptr) memory.release(address, bytes);
    result.step = Step::metadata;
    return result;
  }
  auto* const pool = new (address) PoolImpl;
  pool->heap_key_ = new_pool_id();
  pool->memory_ = &memory;
  pool->made_bytes_ = bytes;
  pool->options_ = options;
  pool->options_.name[k_name_capacity - 1] = '\0';
  pool->limit_ = limit;
  pool->idle_ = options.idle;
  pool->grown_at_.store(os::clock().now(), std::memory_order_relaxed);
  pool->fallback_ = fallback != nullptr ? *fallback : k_libc;
  pool->symmetric_ = !memory.process_barrier_available();
  pool->attention_.store(options.zero_on_free ? blocks::k_clearing : 0, std::memory_order_relaxed);

  pages::GrowthFailure failure = pool->store_.initialise(memory, growth_options(options, limit), pool->heap_key_);
  if (failure.error == 0 && options.size != 0) {
    failure = pool->store_.grow(static_cast<std::uint32_t>(base::divide_up(options.size, os::k_page_size)));
  }
  if (failure.error == 0 && (options.debug || (options.watch && base::watched())) && !pool->add_debug_layer()) {
    failure = {pages::GrowthStep::metadata, ENOMEM};
  }
  if (failure.error == 0) {
    pool->slot_ = registry_enter(*pool);
    if (pool->slot_ == k_no_slot) failure = {pages::GrowthStep::metadata, EMFILE};
  }
  if (failure.error != 0) {
    result.step = step_of(failure.step);
    result.error = failure.error;
    const std::size_t huge = pool->store_.options().explicit_huge;
    result.got = result.step == Step::lock         ? memory.lockable_memory()
                 : result.step == Step::huge_pages ? (huge != 0 ? memory.free_huge_pages(huge) * huge : 0)
                                                   : memory.available_memory();
    pool->destroy();
    return result;
  }
  pool->join_recording();
  result.pool = pool;
  return result;
}

bool PoolImpl::add_debug_layer() noexcept {
  void* const room = std::malloc(sizeof(DebugLayer));
  if (room == nullptr) return false;
  debug_ = new (room) DebugLayer(*this);
  heap_key_ |= k_no_hits;
  os::trap_faults([](const void* address) noexcept {
    const PoolImpl* const pool = registry_find(address);
    if (pool != nullptr && pool->debug_ != nullptr) pool->debug_->explain_fault(address);
  });
  return true;
}

void PoolImpl::destroy() noexcept {
  thaw();  // frozen pools are counted
  if (debug_ != nullptr) {
    debug_->empty_quarantine();
    debug_->~DebugLayer();
    std::free(debug_);
  }
  os::Memory& memory = *memory_;
  // While its addresses are still its own.
  if (recording()) trace::recorder().pool_ends(store_.view().id);
  origins_.release(memory);
  const std::size_t bytes = made_bytes_;
  store_.destroy();
  this->~PoolImpl();
  memory.release(this, bytes);
}

void Pool::add_reference() noexcept { impl(*this).references_.fetch_add(1, std::memory_order_relaxed); }

bool PoolImpl::add_reference_if_held() noexcept {
  std::uint64_t now = references_.load(std::memory_order_relaxed);
  while (now % k_arena_reference != 0) {
    if (references_.compare_exchange_weak(now, now + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

void Pool::drop_reference() noexcept {
  PoolImpl& self = impl(*this);
  std::uint64_t now = self.references_.load(std::memory_order_relaxed);
  for (bool useful = true;;) {
    // Only object arenas will be left, which may live for long: all else is of no use any more. Before the reference goes,
    // as the last arena may end the pool at any time after it.
    if (useful && now > k_arena_reference && now % k_arena_reference == 1) {
      self.give_up_free_memory();
      useful = false;
    }
    if (self.references_.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel, std::memory_order_relaxed)) break;
  }
  if (now == 1) self.drop_last_reference();
}

void PoolImpl::drop_last_reference() noexcept {
  // Blocks still alive belong to somebody who holds no reference: their memory must stay for good.
  if (live_blocks() != 0) return;
  registry_leave(*this, [](PoolImpl& pool) noexcept { pool.destroy(); });
}

std::size_t PoolImpl::give_up_free_memory() noexcept {
  if (debug_ != nullptr) debug_->empty_quarantine();
  flush_heaps();
  give_kept_arenas_back(0, SIZE_MAX);
  return store_.trim();
}

bool Pool::debug() const noexcept { return impl(*this).debug_ != nullptr; }

std::size_t Pool::outstanding(LiveBlock* blocks, std::size_t capacity) noexcept {
  DebugLayer* const debug = impl(*this).debug_;
  return debug != nullptr ? debug->outstanding(blocks, capacity) : 0;
}

void Pool::set_call_site(CallSite call_site) noexcept { DebugLayer::set_call_site(call_site); }

bool Pool::contains(const void* address) const noexcept {
  const pages::PageStore& store = impl(*this).store_;
  return static_cast<std::size_t>(static_cast<const char*>(address) - store.view().base) < store.reserved();
}

std::size_t Pool::usable_size(const void* block) const noexcept {
  if (DebugLayer* const debug = impl(*this).debug_) return debug->usable_size(block);
  const PoolImpl::Found found = impl(*this).find_block(block);
  return found.place == PoolImpl::Place::live ? found.granted : 0;
}

Pool* Pool::find(const void* address) noexcept { return registry_find(address); }

const Options& Pool::options() const noexcept { return impl(*this).options_; }
const char* Pool::name() const noexcept { return impl(*this).options_.name; }
std::uint64_t Pool::id() const noexcept { return impl(*this).store_.view().id; }
void* Pool::arena_begin() const noexcept { return impl(*this).store_.view().base; }
std::size_t Pool::arena_reserved() const noexcept { return impl(*this).store_.reserved(); }

Effective Pool::effective() noexcept {
  PoolImpl& self = impl(*this);
  const pages::GrowthOptions& growth = self.store_.options();
  Effective effective;
  effective.size = self.store_.held();
  effective.limit = growth.limit;
  effective.prefault = growth.prefault;
  effective.lock = growth.lock && self.store_.lock_error() == 0;
  effective.huge_pages = self.options_.huge_pages;
  if (growth.limit < self.limit_) {
    effective.degradations[effective.count++] = {Step::reserve, ENOMEM, self.limit_, growth.limit};
  }
  if (const int error = self.store_.lock_error(); error != 0) {
    effective.degradations[effective.count++] = {Step::lock, error, effective.size, self.memory_->lockable_memory()};
  }
  if (const int error = self.store_.huge_error(); error != 0) {
    effective.huge_pages = HugePages::off;
    const std::size_t page = growth.explicit_huge;
    effective.degradations[effective.count++] = {Step::huge_pages, error, page != 0 ? page : os::k_huge_page_size,
                                                 page != 0 ? self.memory_->free_huge_pages(page) * page : 0};
  }
  return effective;
}

}  // namespace rtpool::pool
