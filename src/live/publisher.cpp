#include "live/publisher.hpp"

#include <atomic>
#include <cstdio>
#include <cstring>

#include "live/page.hpp"
#include "os/clock.hpp"
#include "os/helper_thread.hpp"
#include "os/shared_memory.hpp"
#include "os/shared_page.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::live {
namespace {

constinit Page* g_page = nullptr;
constinit int g_file = -1;
constinit std::int32_t g_process = 0;

void fill(PoolEntry& entry, const char* name, std::uint64_t id, std::uint64_t limit, std::uint32_t flags, const pool::Stats& stats) noexcept {
  std::snprintf(entry.name, sizeof entry.name, "%.*s", static_cast<int>(sizeof entry.name) - 1, name);
  entry.id = id;
  entry.limit = limit;
  entry.flags = flags;
  entry.stats = stats;
}

void write_pools(Page& page) noexcept {
  std::uint32_t count = 0;
  for (std::uint32_t slot = 0; pool::Pool* const pool = pool::Pool::next_held(&slot); ++slot) {
    if (count < k_most_pools) {
      const std::uint32_t flags = (pool->frozen() ? k_frozen : 0U) | (pool->debug() ? k_debug : 0U);
      fill(page.pools[count], pool->name(), pool->id(), pool->effective().limit, flags, pool->stats());
    }
    ++count;
    pool->drop_reference();
  }
  shared::SharedPool::for_each([&](shared::SharedPool& pool) noexcept {
    if (count < k_most_pools) {
      fill(page.pools[count], pool.name(), 0, pool.geometry().data_bytes, k_shared, pool.stats().common);
    }
    ++count;
  });
  page.head.pools = count;
}

// What comes after a release may be seen before it, on Arm also of a sequentially consistent one: it takes the fence for nothing of
// the answer to be seen with the even number from before.
void answer(Page& page) noexcept {
  const std::uint32_t sequence = page.head.sequence.load(std::memory_order_relaxed);
  page.head.sequence.store(sequence | 1U, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  page.head.instant = static_cast<std::uint64_t>(os::clock().now());
  write_pools(page);
  page.head.sections = static_cast<std::uint32_t>(realtime::read_sections(page.sections, k_most_sections));
  page.head.sequence.store((sequence | 1U) + 1U, std::memory_order_release);
}

void serve(void*) noexcept {
  Page& page = *g_page;
  std::uint32_t done = 0;
  for (;;) {
    const std::uint32_t asked = page.head.asked.load();
    if (asked == done) {
      os::sleep_while_shared(page.head.asked, asked, os::k_for_ever);
      continue;
    }
    answer(page);
    done = asked;
    page.head.answered.store(asked);
    os::wake_shared(page.head.answered);
  }
}

}  // namespace

int start() noexcept {
  const std::int32_t process = os::shared_memory().process_id();
  if (g_process == process) return 0;
  void* address = nullptr;
  int file = -1;
  if (const int error = os::open_shared_page(k_file_name, sizeof(Page), &file, &address); error != 0) return error;
  auto* const page = static_cast<Page*>(address);
  Head& head = page->head;
  std::memcpy(head.magic, "rtpool\0\1", sizeof head.magic);
  head.version = k_version;
  head.bytes = sizeof(Page);
  head.process = static_cast<std::uint32_t>(process);
  head.pool_bytes = sizeof(PoolEntry);
  head.section_bytes = sizeof(realtime::SectionFigures);
  head.stats_fields = sizeof(pool::Stats) / sizeof(std::uint64_t);
  head.section_fields = sizeof(realtime::SectionFigures) / sizeof(std::uint64_t);
  g_page = page;
  if (const int error = os::HelperThread::start_detached(serve, nullptr); error != 0) {
    os::close_shared_page(file, address, sizeof(Page));
    return error;
  }
  g_file = file;
  g_process = process;
  return 0;
}

int restart_in_child() noexcept {
  if (g_process == 0 || g_process == os::shared_memory().process_id()) return 0;
  os::close_shared_page(g_file, nullptr, sizeof(Page));
  g_process = 0;
  return start();
}

}  // namespace rtpool::live
