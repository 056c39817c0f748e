#include "trace/chunk_store.hpp"

#include <cerrno>
#include <mutex>
#include <new>

#include "base/bits.hpp"

namespace rtpool::trace {
namespace {

constexpr std::size_t slab_bytes(std::size_t size) noexcept { return base::align_up(size, os::k_largest_kernel_page); }

}  // namespace

int ChunkStore::add_slab(os::Memory& memory) noexcept {
  const std::lock_guard guard(lock_);
  const std::uint32_t index = slab_count_.load(std::memory_order_relaxed);
  if (index == k_most_slabs) return ENOMEM;
  const std::size_t bytes = slab_bytes(sizeof(Slab));
  void* address = nullptr;
  if (const int error = os::reserve_resident(memory, bytes, &address); error != 0) return error;
  auto* const slab = new (address) Slab;
  slabs_[index].store(slab, std::memory_order_release);
  slab_count_.store(index + 1, std::memory_order_release);
  for (Chunk& chunk : slab->chunks) give(chunk);
  return 0;
}

void ChunkStore::release(os::Memory& memory) noexcept {
  const std::uint32_t count = slab_count_.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < count; ++i) {
    memory.release(slabs_[i].load(std::memory_order_relaxed), slab_bytes(sizeof(Slab)));
    slabs_[i].store(nullptr, std::memory_order_relaxed);
  }
  forget();
}

void ChunkStore::forget() noexcept {
  slab_count_.store(0, std::memory_order_relaxed);
  free_.store(0, std::memory_order_relaxed);
  free_count_.store(0, std::memory_order_relaxed);
  full_.store(0, std::memory_order_relaxed);
}

std::uint32_t ChunkStore::number_of(const Chunk& chunk) const noexcept {
  const std::uint32_t count = slab_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    const Slab* const slab = slabs_[i].load(std::memory_order_relaxed);
    if (&chunk >= slab->chunks && &chunk < slab->chunks + k_slab_chunks) {
      return i * k_slab_chunks + static_cast<std::uint32_t>(&chunk - slab->chunks) + 1;
    }
  }
  return 0;
}

Chunk* ChunkStore::take() noexcept {
  std::uint64_t head = free_.load(std::memory_order_acquire);
  for (;;) {
    const auto number = static_cast<std::uint32_t>(head & k_number_mask);
    if (number == 0) return nullptr;
    Chunk& chunk = chunk_at(number);
    const std::uint64_t after = ((head >> 32) + 1) << 32 | chunk.next.load(std::memory_order_relaxed);
    if (free_.compare_exchange_weak(head, after, std::memory_order_acquire, std::memory_order_acquire)) {
      free_count_.fetch_sub(1, std::memory_order_relaxed);
      return &chunk;
    }
  }
}

void ChunkStore::give(Chunk& chunk) noexcept {
  const std::uint32_t number = number_of(chunk);
  free_count_.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t head = free_.load(std::memory_order_relaxed);
  std::uint64_t after;
  do {
    chunk.next.store(static_cast<std::uint32_t>(head & k_number_mask), std::memory_order_relaxed);
    after = ((head >> 32) + 1) << 32 | number;
  } while (!free_.compare_exchange_weak(head, after, std::memory_order_release, std::memory_order_relaxed));
}

void ChunkStore::push_full(Chunk& chunk) noexcept {
  const std::uint32_t number = number_of(chunk);
  std::uint32_t head = full_.load(std::memory_order_relaxed);
  do {
    chunk.next.store(head, std::memory_order_relaxed);
  } while (!full_.compare_exchange_weak(head, number, std::memory_order_release, std::memory_order_relaxed));
}

Chunk* ChunkStore::take_full() noexcept {
  std::uint32_t number = full_.exchange(0, std::memory_order_acquire);
  std::uint32_t reversed = 0;
  while (number != 0) {
    Chunk& chunk = chunk_at(number);
    const std::uint32_t below = chunk.next.load(std::memory_order_relaxed);
    chunk.next.store(reversed, std::memory_order_relaxed);
    reversed = number;
    number = below;
  }
  return reversed == 0 ? nullptr : &chunk_at(reversed);
}

Chunk* ChunkStore::next(const Chunk& chunk) noexcept {
  const std::uint32_t number = chunk.next.load(std::memory_order_relaxed);
  return number == 0 ? nullptr : &chunk_at(number);
}

}  // namespace rtpool::trace
