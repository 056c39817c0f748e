// core_bench_idle: what giving idle memory back costs those who allocate meanwhile.
//
//   core_bench_idle [--seconds N] [--json]
//
// `step`: how long a step of `Heap::age`, and of `PageStore::trim_step` without memory behind its frames, takes: the longest time
// that a thread waits for the scavenger. Caches are emptied before each. `beside`: a thread replaces one of 64 blocks of random
// sizes, 64 B to 1 MiB, again and again, hits and misses, while another makes waves of blocks and drops them, which go back after
// 50 ms, or (`still`) stay. Samples count while the other sleeps. `alone`: without the other, what the machine does by itself.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "blocks/heap_hit.hpp"
#include "measure.hpp"
#include "pool/pool.hpp"
#include "report.hpp"

namespace rtpool::bench {
namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr double k_long_ns = 20'000;

void add_times(Report& report, const char* suite, const char* label, std::vector<std::uint32_t>& samples) {
  const double scale = ns_per_tick();
  double above = 0;
  for (const std::uint32_t sample : samples) above += sample * scale > k_long_ns ? 1 : 0;
  report.add(suite, label,
             {{"count", static_cast<double>(samples.size())},
              {"p50", quantile(samples, 0.5) * scale, "ns"},
              {"p99", quantile(samples, 0.99) * scale, "ns"},
              {"p99.99", quantile(samples, 0.9999) * scale, "ns"},
              {"max", quantile(samples, 1.0) * scale, "ns"},
              {"above_20_us", above}});
}

// Of what the caches hold nothing is left of the pool.
void empty_caches() {
  static std::vector<char> other(32 * k_mib);
  for (std::size_t i = 0; i < other.size(); i += 64) ++other[i];
  escape(other.data());
}

std::uint32_t timed(const auto& step) {
  empty_caches();
  const std::uint64_t begin = ticks();
  step();
  return static_cast<std::uint32_t>(ticks() - begin);
}

void run_steps(Report& report) {
  constexpr unsigned k_runs = 2'000;
  pages::PageStore store;
  pages::GrowthOptions options;
  options.limit = 2048 * k_mib;
  options.prefault = false;
  if (store.initialise(os::memory(), options, 1).error != 0) std::exit(1);
  auto& heap = *new (store.take_record(sizeof(blocks::Heap), true)) blocks::Heap(store, 0, false, 0);
  pages::GrowthFailure failure;
  std::vector<pages::PageIndex> runs;
  for (unsigned i = 0; i < k_runs; ++i) {
    const std::uint32_t pages = 2 + i % 7 * 13;
    const pages::PageRuns::Taken run = store.take_or_grow(pages, &failure);
    heap.adopt_run(run, pages, pages * os::k_page_size, true);
    runs.push_back(run.first);
    if (i % 2 == 0) (void)heap.add_slab(1 + i % 40, true, &failure);
  }
  for (const pages::PageIndex run : runs) heap.free_run(run);
  std::vector<std::uint32_t> steps;
  for (unsigned pass = 0; pass < 2; ++pass) {
    store.begin_epoch();
    blocks::Heap::Aging at;
    for (bool more = true; more;) {
      steps.push_back(timed([&] { more = heap.age(store.epoch(), store.epoch() - 1, &at); }));
    }
  }
  add_times(report, "step", "a heap's, cold", steps);
  std::vector<std::uint32_t> trims;
  pages::PageStore::Trimming at;
  for (bool more = true; more;) {
    trims.push_back(timed([&] { more = store.trim_step(pages::PageStore::k_all_epochs, 1, &at); }));
  }
  add_times(report, "step", "the store's, cold", trims);
  store.destroy();
}

struct Waves {
  pool::Pool& pool;
  std::atomic<bool> ends{false};
  std::atomic<bool> sleeps{false};

  void run() {
    std::vector<void*> blocks;
    while (!ends) {
      sleeps = false;
      for (int i = 0; i < 1'000; ++i) blocks.push_back(pool.allocate(100'000));
      for (int i = 0; i < 20'000; ++i) blocks.push_back(pool.allocate(900));
      for (void* const block : blocks) pool.release(block);
      blocks.clear();
      sleeps = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
    }
    sleeps = true;
  }
};

void run_beside(Report& report, const char* label, bool waves, os::Nanoseconds idle, double seconds) {
  pool::Options options;
  options.idle = idle;
  options.limit = 4096 * k_mib;
  pool::Pool& pool = *pool::Pool::create(options).pool;
  Waves other{pool};
  std::thread thread;
  if (waves) thread = std::thread([&] { other.run(); });
  other.sleeps = !waves;
  std::vector<std::uint32_t> samples;
  Random random(1);
  void* alive[64] = {};
  const std::uint64_t end = now_ns() + static_cast<std::uint64_t>(seconds * 1e9);
  while (now_ns() < end) {
    for (unsigned i = 0; i < 256; ++i) {
      void*& slot = alive[random.next() >> 58];
      const std::size_t size = random.size(6, 20);
      const bool counts = other.sleeps.load(std::memory_order_relaxed);
      const std::uint64_t begin = ticks();
      pool.release(slot);
      slot = pool.allocate(size);
      const std::uint64_t took = ticks() - begin;
      if (counts && samples.size() < 20'000'000) samples.push_back(static_cast<std::uint32_t>(took));
    }
  }
  for (void* const block : alive) pool.release(block);
  other.ends = true;
  if (thread.joinable()) thread.join();
  add_times(report, "beside", label, samples);
  report.add("beside", std::string(label) + ", counted",
             {{"misses", static_cast<double>(pool.stats().misses)},
              {"given_back_mib", static_cast<double>(pool.stats().returned_bytes) / k_mib}});
  pool.drop_reference();
}

}  // namespace
}  // namespace rtpool::bench

int main(int argc, char** argv) {
  using namespace rtpool::bench;
  double seconds = 10;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) seconds = std::atof(argv[++i]);
  }
  ns_per_tick();
  Report report(json);
  run_steps(report);
  run_beside(report, "alone", false, 0, seconds);
  run_beside(report, "still", true, 0, seconds);
  run_beside(report, "giving back", true, 50'000'000, seconds);
  report.finish("rtpool");
  return 0;
}
