// Workloads of several threads: scaling of independent threads, one thread freeing what another allocates.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "crews.hpp"
#include "measure.hpp"
#include "workloads.hpp"

namespace rtpool::bench {
namespace {

std::uint64_t resident_bytes() {
  unsigned long total = 0;
  unsigned long resident = 0;
  if (FILE* const file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%lu %lu", &total, &resident) != 2) {
      resident = 0;
    }
    std::fclose(file);
  }
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

struct Consumed {
  double voluntary_switches = 0;
  double free_p50 = 0;
  double free_p9999 = 0;
  double free_max = 0;
};

}  // namespace

void run_threads(const Allocator& a, Report& report, unsigned rounds) {
  const unsigned most = usable_cpus() < 4 ? usable_cpus() : 4;
  if (most < 2) {
    std::fprintf(stderr, "core_bench: threads: only one processor, nothing to compare\n");
    return;
  }
  for (const Sizes sizes : {Sizes{"64 B", 6, 6}, {"4 KiB", 12, 12}, {"64 KiB", 16, 16}, {"1 MiB", 20, 20},
                            {"64 B..64 KiB, 16 alive", 6, 16}}) {
    std::vector<double> one;
    std::vector<double> many;
    std::vector<double> ratio;
    // Slow allocators get fewer operations: a round should stay near 100 ms.
    const std::size_t pairs = sizes.low == sizes.high ? 1'000'000 : 300'000;
    const double probe = time_threads(a, most, sizes, pairs / 50);
    const std::size_t count = std::min(pairs, static_cast<std::size_t>(1e8 / (probe + 1)) + 1);
    for (unsigned round = 0; round < rounds; ++round) {
      one.push_back(time_threads(a, 1, sizes, count));
      many.push_back(time_threads(a, most, sizes, count));
      ratio.push_back(most * one.back() / many.back());
    }
    const Spread scaling = spread(ratio);
    report.add("threads", sizes.label,
               {{"threads", static_cast<double>(most)},
                {"one_thread", spread(one).median, "ns"},
                {"all_threads", spread(many).median, "ns"},
                {"scaling", scaling.median, "x"},
                {"scaling_min", scaling.min, "x"},
                {"scaling_max", scaling.max, "x"}});
  }
}

void run_producer_consumer(const Allocator& a, Report& report, unsigned rounds) {
  constexpr std::size_t k_blocks = 2'000'000;
  std::vector<double> per_block;
  Consumed worst;
  std::uint64_t most_resident = 0;
  std::uint64_t most_capacity = 0;
  const std::uint64_t resident_before = resident_bytes();
  const unsigned repeats = rounds < 3 ? rounds : 3;
  for (unsigned round = 0; round < repeats; ++round) {
    const auto ring = std::make_unique<Ring>();
    Consumed consumed;
    const std::uint64_t t0 = now_ns();
    std::thread consumer([&] {
      pin_to(1);
      std::vector<std::uint32_t> samples(k_blocks / 16);
      rusage before;
      rusage after;
      getrusage(RUSAGE_THREAD, &before);
      for (std::size_t i = 0; i < k_blocks; ++i) {
        void* const block = ring->pop();
        if (i % 16 != 0) {
          a.release(block);
          continue;
        }
        const std::uint64_t began = ticks();
        a.release(block);
        const std::uint64_t took = ticks() - began;
        samples[i / 16] = took > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(took);
      }
      getrusage(RUSAGE_THREAD, &after);
      consumed.voluntary_switches = static_cast<double>(after.ru_nvcsw - before.ru_nvcsw);
      consumed.free_p50 = quantile(samples, 0.5) * ns_per_tick();
      consumed.free_p9999 = quantile(samples, 0.9999) * ns_per_tick();
      consumed.free_max = quantile(samples, 1.0) * ns_per_tick();
    });
    std::thread producer([&] {
      pin_to(0);
      Random random(3);
      for (std::size_t i = 0; i < k_blocks; ++i) {
        ring->push(a.allocate(random.size(6, 12)));
        if (i % (k_blocks / 10) == 0) {
          most_resident = std::max(most_resident, resident_bytes());
          most_capacity = std::max(most_capacity, a.capacity());
        }
      }
    });
    producer.join();
    consumer.join();
    per_block.push_back(static_cast<double>(now_ns() - t0) / static_cast<double>(k_blocks));
    worst.voluntary_switches = std::max(worst.voluntary_switches, consumed.voluntary_switches);
    worst.free_p50 = std::max(worst.free_p50, consumed.free_p50);
    worst.free_p9999 = std::max(worst.free_p9999, consumed.free_p9999);
    worst.free_max = std::max(worst.free_max, consumed.free_max);
  }
  const Spread s = spread(per_block);
  report.add("producer_consumer", "2,000,000 blocks",
             {{"median", s.median, "ns"},
              {"min", s.min, "ns"},
              {"max", s.max, "ns"},
              {"resident_growth",
               static_cast<double>(most_resident - std::min(most_resident, resident_before)) / (1 << 20), "MiB"},
              {"capacity", static_cast<double>(most_capacity) / (1 << 20), "MiB"},
              {"consumer_voluntary_switches", worst.voluntary_switches},
              {"free_p50", worst.free_p50, "ns"},
              {"free_p99.99", worst.free_p9999, "ns"},
              {"free_max", worst.free_max, "ns"}});
}

void run_handoff(const Allocator& a, Report& report, unsigned rounds) {
  for (const Sizes sizes :
       {Sizes{"64 B", 6, 6}, {"512 B", 9, 9}, {"4 KiB", 12, 12}, {"32 KiB", 15, 15}, {"256 KiB", 18, 18}, {"1 MiB", 20, 20}}) {
    // Slow allocators get fewer blocks: a round should stay near 50 ms.
    const double probe = time_handoff(a, 1, sizes, 4000);
    const auto blocks = static_cast<std::size_t>(5e7 / (probe + 50)) + 1000;
    std::vector<double> values;
    for (unsigned round = 0; round < rounds; ++round) {
      values.push_back(time_handoff(a, 1, sizes, blocks));
    }
    const Spread s = spread(values);
    report.add("handoff", sizes.label, {{"median", s.median, "ns"}, {"min", s.min, "ns"}, {"max", s.max, "ns"}});
  }
}

}  // namespace rtpool::bench
