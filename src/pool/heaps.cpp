// The heaps of a pool: made, adopted, abandoned, stopped.
#include <mutex>
#include <new>

#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"

namespace rtpool::pool {

using blocks::Heap;

Heap* PoolImpl::take_heap_locked(bool may_grow) noexcept {
  if (orphan_count_ != 0) return heaps_[orphans_[--orphan_count_]].load(std::memory_order_relaxed);
  const std::uint32_t index = heap_count_.load(std::memory_order_relaxed);
  if (index == k_max_heaps) return nullptr;
  void* const record = store_.take_record(sizeof(Heap), may_grow);
  if (record == nullptr) return nullptr;
  if (index != 0) store_.share();
  auto* const heap = new (record) Heap(store_, index, symmetric_, attention_.load(std::memory_order_relaxed));
  heaps_[index].store(heap, std::memory_order_release);
  heap_count_.store(index + 1, std::memory_order_release);
  return heap;
}

Heap* PoolImpl::thread_heap() noexcept {
  if (Heap* const heap = find_heap(*this)) return heap;
  Heap* heap = nullptr;
  {
    const std::lock_guard guard(control_lock_);
    heap = take_heap_locked(frozen_.load(std::memory_order_relaxed) == Frozen::no);
  }
  if (heap == nullptr || remember_heap(*this, heap)) return heap;
  abandon(*heap);
  return nullptr;
}

void PoolImpl::give_heap_to_stranger() noexcept {
  if (debug_ != nullptr || frozen_.load(std::memory_order_relaxed) != Frozen::no || !control_lock_.try_lock()) return;
  Heap* const heap = take_heap_locked(true);
  control_lock_.unlock();
  if (heap != nullptr && !remember_heap(*this, heap)) abandon(*heap);
}

void PoolImpl::abandon(Heap& heap) noexcept {
  heap.lock.enter();
  send_outgoing(heap);
  heap.give_departing();
  heap.lock.leave();
  store_.share();
  const std::lock_guard guard(control_lock_);
  orphans_[orphan_count_++] = static_cast<std::uint16_t>(heap.index());
}

void PoolImpl::stop_heaps() noexcept {
  for_each_heap([](Heap& heap) { heap.lock.begin_stop(); });
  // A single heap that is the caller's own needs no barrier: nobody else can be inside.
  const bool only_own = heap_count_.load(std::memory_order_relaxed) == 1 && find_heap(*this) != nullptr;
  if (!only_own) pass_barrier();
  for_each_heap([](Heap& heap) { heap.lock.await(); });
}

void PoolImpl::pass_barrier() noexcept {
  if (!symmetric_) {
    store_.count_kernel_call();
    if (memory_->process_barrier() != 0) {
      // The process may have given up the call since (a seccomp filter). This once, wait until no store that was under way
      // can still be on its way; from now on owners take the mutex.
      for_each_heap([](Heap& heap) { heap.lock.set_bit(blocks::k_symmetric); });
      symmetric_ = true;
      blocks::HeapLock::outlast_stores();
    }
  }
}

void PoolImpl::resume_heaps() noexcept {
  for_each_heap([](Heap& heap) { heap.lock.resume(); });
}

void PoolImpl::hold_pages() noexcept {
  object_arenas_.lock().lock();
  store_.lock();
}

void PoolImpl::let_pages_go() noexcept {
  store_.unlock();
  object_arenas_.lock().unlock();
}

void PoolImpl::flush_heaps() noexcept {
  const std::lock_guard guard(control_lock_);
  stop_heaps();
  for_each_heap([this](Heap& heap) { send_outgoing(heap); });  // to others, so all of them before any takes back
  for_each_heap([](Heap& heap) { heap.flush(); });
  resume_heaps();
}

void PoolImpl::set_attention(std::uint32_t bit, bool on) noexcept {
  if (on) {
    attention_.fetch_or(bit, std::memory_order_relaxed);
    for_each_heap([bit](Heap& heap) { heap.lock.set_bit(bit); });
  } else {
    attention_.fetch_and(~bit, std::memory_order_relaxed);
    for_each_heap([bit](Heap& heap) { heap.lock.clear_bit(bit); });
  }
}

void PoolImpl::stop_for_fork() noexcept {
  if (debug_ != nullptr) debug_->gate().close();  // who is in there passes the other one as well
  gate_.close();
  idle_lock_.lock();
  control_lock_.lock();
  stop_heaps();
  learning_lock_.lock();
  fallback_table_.lock().lock();
  if (debug_ != nullptr) debug_->lock().lock();
  hold_pages();
}

void PoolImpl::resume_after_fork(bool child) noexcept {
  // The scavenger has ended: the next use of the pool makes it anew.
  if (may_be_watched()) {
    resting_.store(true, std::memory_order_relaxed);
    set_attention(blocks::k_resting, true);
  }
  if (!child) {
    let_pages_go();
    if (debug_ != nullptr) debug_->lock().unlock();
    fallback_table_.lock().unlock();
    learning_lock_.unlock();
    resume_heaps();
    control_lock_.unlock();
    idle_lock_.unlock();
    gate_.open();
    if (debug_ != nullptr) debug_->gate().open();
    return;
  }
  store_.reset_after_fork();
  object_arenas_.lock().reset_after_fork();
  if (debug_ != nullptr) debug_->lock().reset_after_fork();
  fallback_table_.lock().reset_after_fork();
  learning_lock_.reset_after_fork();
  // Only the forking thread exists here: every other heap is free to be adopted.
  const Heap* const own = find_heap(*this);
  orphan_count_ = 0;
  for_each_heap([&](Heap& heap) {
    heap.lock.reset_after_fork();
    send_outgoing(heap);
    if (&heap != own) orphans_[orphan_count_++] = static_cast<std::uint16_t>(heap.index());
  });
  forget_recording();
  control_lock_.reset_after_fork();
  idle_lock_.reset_after_fork();
  gate_.reset_after_fork();
  if (debug_ != nullptr) debug_->gate().reset_after_fork();
}

}  // namespace rtpool::pool
