#include "trace/origins.hpp"

#include "base/bits.hpp"

namespace rtpool::trace {
namespace {

// By so much of the pool's addresses at once.
constexpr std::size_t k_step = std::size_t{64} << 20;

// Each table is committed apart.
std::size_t pages_bytes(std::size_t bytes) noexcept {
  return base::align_up(base::divide_up(bytes, os::k_page_size) * sizeof(std::uint64_t), os::k_largest_kernel_page);
}
std::size_t units_bytes(std::size_t bytes) noexcept {
  return base::align_up(base::divide_up(bytes, 64) * sizeof(std::uint64_t), os::k_largest_kernel_page);
}

}  // namespace

int Origins::begin(os::Memory& memory, const void* first, std::size_t bytes) noexcept {
  // Once a pool: an allocation of the recording before may still be on its way here.
  if (reserved_ != 0) return 0;
  const std::size_t wanted = pages_bytes(bytes) + units_bytes(bytes);
  void* address = nullptr;
  if (const int error = memory.reserve(wanted, os::k_page_size, &address); error != 0) return error;
  // Touched here and there: a huge page each time would be 512 times too much.
  (void)memory.advise_huge(address, wanted, false);
  memory_ = &memory;
  reserved_ = wanted;
  pages_ = static_cast<Word*>(address);
  units_ = reinterpret_cast<Word*>(static_cast<char*>(address) + pages_bytes(bytes));
  first_ = first;
  bytes_ = bytes;
  return 0;
}

int Origins::cover(std::size_t bytes) noexcept {
  std::size_t covered = covered_.load(std::memory_order_acquire);
  bytes = base::align_up(bytes, k_step);
  if (bytes > bytes_) bytes = bytes_;
  if (bytes <= covered) return 0;
  // Two threads may do so at once; what is committed already stays as it is.
  if (const int error = memory_->commit(pages_, pages_bytes(bytes)); error != 0) return error;
  if (const int error = memory_->commit(units_, units_bytes(bytes)); error != 0) return error;
  while (covered < bytes && !covered_.compare_exchange_weak(covered, bytes, std::memory_order_release, std::memory_order_acquire)) {
  }
  return 0;
}

void Origins::release(os::Memory& memory) noexcept {
  if (reserved_ != 0) (void)memory.release(pages_, reserved_);
  reserved_ = bytes_ = 0;
  covered_.store(0, std::memory_order_relaxed);
}

int Origins::make_resident(os::Memory& memory, std::size_t bytes) noexcept {
  const int error = make_resident(memory, Table::large, 0, bytes);
  return error != 0 ? error : make_resident(memory, Table::small, 0, bytes);
}

int Origins::make_resident(os::Memory& memory, Table table, std::size_t begin, std::size_t end) noexcept {
  if (begin >= end || end > bytes_) return 0;
  if (const int error = cover(end); error != 0) return error;
  const std::size_t grain = table == Table::large ? os::k_page_size : k_unit;
  const std::size_t first = base::align_down(begin / grain * sizeof(Word), os::k_largest_kernel_page);
  const std::size_t last = table == Table::large ? pages_bytes(end) : units_bytes(end);
  return memory.prefault(reinterpret_cast<char*>(table == Table::large ? pages_ : units_) + first, last - first);
}

void Origins::discard(os::Memory& memory) noexcept {
  const std::size_t covered = covered_.load(std::memory_order_acquire);
  if (covered == 0) return;
  (void)memory.discard(pages_, pages_bytes(covered), false);
  (void)memory.discard(units_, units_bytes(covered), false);
}

}  // namespace rtpool::trace
