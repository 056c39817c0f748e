#include "trace/origins.hpp"

#include "base/bits.hpp"

namespace rtpool::trace {
namespace {

std::size_t pages_bytes(std::size_t bytes) noexcept {
  return base::align_up(base::divide_up(bytes, os::k_page_size) * sizeof(std::uint64_t), os::k_page_size);
}
std::size_t units_bytes(std::size_t bytes) noexcept {
  return base::align_up(base::divide_up(bytes, 64) * sizeof(std::uint64_t), os::k_page_size);
}

}  // namespace

int Origins::begin(os::Memory& memory, const void* first, std::size_t bytes) noexcept {
  if (reserved_ == 0) {
    const std::size_t wanted = pages_bytes(bytes) + units_bytes(bytes);
    void* address = nullptr;
    if (const int error = memory.reserve(wanted, os::k_page_size, &address); error != 0) return error;
    reserved_ = wanted;
    pages_ = static_cast<Word*>(address);
    units_ = reinterpret_cast<Word*>(static_cast<char*>(address) + pages_bytes(bytes));
  }
  if (const int error = memory.commit(pages_, reserved_); error != 0) return error;
  // Touched here and there: a huge page each time would be 512 times too much.
  (void)memory.advise_huge(pages_, reserved_, false);
  first_ = first;
  bytes_ = bytes;
  return 0;
}

void Origins::clear(os::Memory& memory) noexcept {
  if (reserved_ != 0) (void)memory.discard(pages_, reserved_, false);
}

void Origins::release(os::Memory& memory) noexcept {
  if (reserved_ != 0) (void)memory.release(pages_, reserved_);
  *this = Origins{};
}

int Origins::make_resident(os::Memory& memory, std::size_t bytes) noexcept {
  if (bytes == 0 || bytes > bytes_) return 0;
  const int error = memory.prefault(pages_, pages_bytes(bytes));
  return error != 0 ? error : memory.prefault(units_, units_bytes(bytes));
}

}  // namespace rtpool::trace
