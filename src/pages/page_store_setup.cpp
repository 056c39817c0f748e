// The part of the page store that sets it up: its addresses, and what describes them.
#include <cerrno>

#include "base/bits.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {

namespace {

constexpr std::size_t k_smallest_reservation = std::size_t{64} << 20;
// Addresses are reserved for so many times the limit, so that holes between live blocks need not be closed; at most so many
// bytes more, as a process has 128 TiB of them for all of its pools and files; and where addresses are rationed
// (RLIMIT_AS) at most a sixteenth of the ration more.
constexpr std::size_t k_reserved_limits = 8;
constexpr std::size_t k_reserved_beyond = std::size_t{64} << 30;
constexpr std::size_t k_reserved_share = 16;

constexpr std::size_t bytes_of_descs(std::size_t bytes) noexcept { return (k_descs_before + bytes / os::k_page_size) * sizeof(PageDesc); }

std::size_t addresses_for(std::size_t limit, std::size_t most, std::size_t ration) noexcept {
  std::size_t beyond = limit < k_reserved_beyond / (k_reserved_limits - 1) ? limit * (k_reserved_limits - 1) : k_reserved_beyond;
  if (beyond > ration / k_reserved_share) beyond = ration / k_reserved_share;
  return limit < most && beyond < most - limit ? limit + beyond : most;
}

}  // namespace

GrowthFailure PageStore::initialise(os::Memory& memory, const GrowthOptions& options, std::uint64_t id) noexcept {
  view_.id = id;
  memory_ = &memory;
  options_ = options;
  run_lock_.initialise(memory, kernel_calls_);
  const std::size_t unit = options.explicit_huge != 0 ? options.explicit_huge : os::k_huge_page_size;
  const std::size_t most = base::align_down(std::size_t{k_max_pages} * os::k_page_size, unit) - unit;
  const std::size_t limit = base::align_up(options.limit < most - unit ? options.limit : most - unit, unit);
  std::size_t bytes = base::align_up(addresses_for(limit, most, memory.address_space()), unit);
  const std::size_t floor = limit < k_smallest_reservation ? limit : k_smallest_reservation;
  for (;;) {
    void* base = nullptr;
    int error = memory.reserve(bytes, unit, &base);
    if (error == 0) error = descs_.reserve(memory, bytes_of_descs(bytes));
    if (error == 0) error = frames_.reserve(memory, (bytes / os::k_huge_page_size + 1) * sizeof(Epoch));
    // Records: at worst every page that is ready is a slab of the first class, 256 bytes for each; and heaps.
    if (error == 0) error = records_.reserve(memory, (bytes < limit ? bytes : limit) / 16 + (std::size_t{64} << 20));
    if (error == 0) {
      view_.base = static_cast<char*>(base);
      break;
    }
    if (base != nullptr) memory.release(base, bytes);
    descs_.release(memory);
    frames_.release(memory);
    records_.release(memory);
    std::size_t less = bytes / 2;
    if (bytes > limit && less < limit) less = limit;
    if (less < floor || less < unit) return {GrowthStep::reserve, error};
    bytes = base::align_up(less, unit);
  }
  reserved_ = bytes;
  if (options_.limit > reserved_) options_.limit = reserved_;
  view_.descs = reinterpret_cast<PageDesc*>(descs_.base()) + k_descs_before;
  runs_.attach(view_.descs);
  unsigned calls = 4;
  const int refused = descs_.extend(memory, bytes_of_descs(0), options_.lock, &calls);  // what empty bins lead to
  count_calls(calls);
  if (refused != 0) return {GrowthStep::metadata, refused};
  if (options_.explicit_huge == 0) {
    count_calls(1);
    const char mode = memory.transparent_huge_pages();
    const bool as_frames = mode == 'a' || mode == 'm';
    if (options_.transparent_huge && !as_frames) huge_error_.store(ENOTSUP, std::memory_order_relaxed);
    // The larger huge pages of kernels with larger pages are 16 and more frames. What has gone back of these would come again with any
    // one of them, at a touch or by the kernel's own doing (khugepaged): far more than is ready, and more than the limit.
    const bool wanted = options_.transparent_huge && (as_frames || memory.page_size() == os::k_page_size);
    const int error = memory.advise_huge(view_.base, reserved_, wanted);
    if (error != 0 && wanted) huge_error_.store(error, std::memory_order_relaxed);
  } else if (options_.limit < options_.explicit_huge) {
    if (options_.strict) return {GrowthStep::huge_pages, E2BIG};
    huge_error_.store(E2BIG, std::memory_order_relaxed);
  } else {
    explicit_pages_ = static_cast<std::uint32_t>(options_.explicit_huge / os::k_page_size);
  }
  return {};
}

void PageStore::destroy() noexcept {
  if (view_.base != nullptr) memory_->release(view_.base, reserved_);
  forget_mappings();
  descs_.release(*memory_);
  frames_.release(*memory_);
  records_.release(*memory_);
  view_.base = nullptr;
}

// What describes the first `bytes` of the arena is there and resident from now on; an errno value.
int PageStore::describe(std::size_t bytes, unsigned* calls) noexcept {
  const int error = descs_.extend(*memory_, bytes_of_descs(bytes), options_.lock, calls);
  return error != 0 ? error : frames_.extend(*memory_, (bytes / os::k_huge_page_size + 1) * sizeof(Epoch), options_.lock, calls);
}

}  // namespace rtpool::pages
