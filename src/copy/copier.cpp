#include "copy/copier.hpp"

#include "base/bits.hpp"
#include "copy/workers.hpp"
#include "os/cpu.hpp"

namespace rtpool::copy {
namespace {

// Two lines: where the hardware fetches lines in pairs, neighbours share no pair either.
constexpr std::size_t k_cut_alignment = 2 * k_line_bytes;
// More parts than threads, so that a thread that is held up leaves its share to the others.
constexpr unsigned k_parts_per_thread = 4;

struct CopyJob : Job {
  const Block* blocks;
  std::size_t count;
  CopyRows copy_rows;
  void (*fence)() noexcept;
  std::uintptr_t low;
  std::uintptr_t high;

  std::uintptr_t cut(unsigned part) const noexcept {
    if (part == 0) return low;
    if (part >= parts) return high;
    const std::uintptr_t at = low + (high - low) / parts * part;
    const std::uintptr_t aligned = base::align_up(at, k_cut_alignment);
    return aligned < high ? aligned : high;
  }
};

void copy_part(Job& base_job, unsigned part) noexcept {
  const auto& job = static_cast<const CopyJob&>(base_job);
  const std::uintptr_t begin = job.cut(part);
  const std::uintptr_t end = job.cut(part + 1);
  for (std::size_t i = 0; i < job.count; ++i) copy_window(job.blocks[i], begin, end, job.copy_rows);
}

void fence_part(Job& base_job) noexcept { static_cast<const CopyJob&>(base_job).fence(); }

void nothing() noexcept {}

}  // namespace

std::size_t stream_threshold() noexcept {
  static const std::size_t threshold = os::cache_sizes().last_level() / 2;
  return threshold;
}

Plan make_plan(std::size_t bytes, std::size_t row_bytes, const Request& request) noexcept {
  Plan plan;
  plan.stream = request.mode == Mode::stream ||
                (request.mode == Mode::automatic && bytes >= stream_threshold() && row_bytes >= k_min_stream_row);
  if (bytes < 2 * k_min_thread_bytes) return plan;
  if (request.threads != 0) {
    plan.threads = request.threads;
  } else if (bytes >= k_automatic_thread_bytes) {
    const unsigned cores = os::usable_cores();
    plan.threads = cores < k_max_automatic_threads ? cores : k_max_automatic_threads;
  }
  if (plan.threads > bytes / k_min_thread_bytes) plan.threads = static_cast<unsigned>(bytes / k_min_thread_bytes);
  if (plan.threads > k_max_threads) plan.threads = k_max_threads;
  return plan;
}

void copy_call(const Block* blocks, std::size_t count, std::size_t bytes, std::size_t row_bytes, const Request& request,
               const Owner& owner) noexcept {
  Plan plan = make_plan(bytes, row_bytes, request);
  const bool may_fill = !plan.stream && request.mode == Mode::automatic && count != 0 && row_bytes >= k_min_stream_row &&
                        active_kernel().streams;
  if (!may_fill || !fill_history().begin(owner, blocks[0], bytes, stream_threshold())) {
    copy_blocks(blocks, count, plan);
    return;
  }
  plan.stream = true;
  const os::Nanoseconds began = os::clock().now();
  copy_blocks(blocks, count, plan);
  fill_history().streamed(owner, blocks[0], bytes, began);
}

void copy_blocks(const Block* blocks, std::size_t count, const Plan& plan) noexcept {
  const Kernel& kernel = active_kernel();
  const CopyRows copy_rows = plan.stream ? kernel.stream : kernel.cached;
  if (plan.threads <= 1) {
    for (std::size_t i = 0; i < count; ++i) copy_window(blocks[i], 0, UINTPTR_MAX, copy_rows);
    if (plan.stream) kernel.fence();
    return;
  }
  CopyJob job;
  job.blocks = blocks;
  job.count = count;
  job.copy_rows = copy_rows;
  job.fence = plan.stream ? kernel.fence : nothing;
  job.low = UINTPTR_MAX;
  job.high = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto low = reinterpret_cast<std::uintptr_t>(blocks[i].dst);
    const std::uintptr_t high = low + blocks[i].dst_extent();
    if (low < job.low) job.low = low;
    if (high > job.high) job.high = high;
  }
  job.parts = plan.threads * k_parts_per_thread;
  job.run_part = copy_part;
  job.finish = fence_part;
  run_job(job, plan.threads);
}

}  // namespace rtpool::copy
