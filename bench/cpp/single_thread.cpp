// Workloads of one thread: pairs, batches, mixed sizes, waste, misses.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "measure.hpp"
#include "workloads.hpp"

// Known by their names where instructions are counted, so that they must be there once, as they are written.
#if __has_attribute(noipa)
#define RTPOOL_ONCE __attribute__((noipa))
#else
#define RTPOOL_ONCE __attribute__((noinline))
#endif

namespace rtpool::bench {
namespace {

constexpr std::uint64_t k_round_ns = 4'000'000;

std::uint64_t time_pairs(const Allocator& a, std::size_t size, std::uint64_t count) {
  void* (*const volatile allocate_slot)(std::size_t) = a.allocate;
  void (*const volatile release_slot)(void*) = a.release;
  const auto allocate = allocate_slot;
  const auto release = release_slot;
  const std::uint64_t t0 = now_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    void* const block = allocate(size);
    escape(block);
    release(block);
  }
  return now_ns() - t0;
}

std::uint64_t time_batches(const Allocator& a, std::size_t size, std::uint64_t count) {
  constexpr unsigned k_depth = 32;
  void* blocks[k_depth];
  const std::uint64_t t0 = now_ns();
  for (std::uint64_t i = 0; i < count; i += k_depth) {
    for (void*& block : blocks) {
      block = a.allocate(size);
    }
    escape(blocks);
    for (void* block : blocks) {
      a.release(block);
    }
  }
  return now_ns() - t0;
}

using TimedLoop = std::uint64_t (*)(const Allocator&, std::size_t size, std::uint64_t count);

// Finds a count that fills a round (which also warms up), then measures the rounds. Nanoseconds per pair.
Spread measure(TimedLoop loop, const Allocator& a, std::size_t size, unsigned rounds) {
  std::uint64_t count = 32;
  std::uint64_t took = loop(a, size, count);
  took = loop(a, size, count);
  while (took < k_round_ns / 4 && count < (std::uint64_t{1} << 30)) {
    count *= 2;
    took = loop(a, size, count);
  }
  std::vector<double> values;
  for (unsigned round = 0; round < rounds; ++round) {
    values.push_back(static_cast<double>(loop(a, size, count)) / static_cast<double>(count));
  }
  return spread(values);
}

void require(void* block, std::size_t size) {
  if (block == nullptr) {
    std::fprintf(stderr, "core_bench: allocation of %zu bytes failed\n", size);
    std::exit(1);
  }
}

void run_loop(const char* suite, TimedLoop loop, const Allocator& a, Report& report, unsigned rounds, unsigned high) {
  for (unsigned exponent = 4; exponent <= high; exponent += 2) {
    const std::size_t size = std::size_t{1} << exponent;
    void* const probe = a.allocate(size);
    require(probe, size);
    a.release(probe);
    const Spread s = measure(loop, a, size, rounds);
    report.add(suite, size_text(size), {{"median", s.median, "ns"}, {"min", s.min, "ns"}, {"max", s.max, "ns"}});
  }
}

struct Tail {
  double mean, p50, p99, p9999, max;
};

double mean(const std::vector<std::uint32_t>& samples) {
  double sum = 0;
  for (const std::uint32_t sample : samples) {
    sum += sample;
  }
  return sum / static_cast<double>(samples.size());
}

// Nanoseconds, less what an empty interval takes. The counter of some machines moves in steps of 10 ns: the mean is
// finer.
Tail tail(std::vector<std::uint32_t>& samples, std::uint32_t empty, double empty_mean) {
  const double scale = ns_per_tick();
  const auto at = [&](double q) {
    const std::uint32_t value = quantile(samples, q);
    return value > empty ? (value - empty) * scale : 0.0;
  };
  return {(mean(samples) - empty_mean) * scale, at(0.50), at(0.99), at(0.9999), at(1.0)};
}

std::uint32_t clamp(std::uint64_t interval) {
  return interval > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(interval);
}

}  // namespace

void run_pairs(const Allocator& a, Report& report, unsigned rounds) {
  run_loop("pairs", time_pairs, a, report, rounds, 30);
}

void run_batches(const Allocator& a, Report& report, unsigned rounds) {
  run_loop("batches", time_batches, a, report, rounds, 22);
}

void run_mixed(const Allocator& a, Report& report, unsigned rounds) {
  constexpr std::size_t k_alive = 64;
  constexpr std::size_t k_operations = 1'000'000;
  std::vector<std::uint32_t> samples(k_operations);
  std::vector<std::uint32_t> idle(k_operations);
  std::vector<double> p50;
  std::vector<double> p99;
  std::vector<double> p9999;
  std::vector<double> max;
  Random random(1);
  void* alive[k_alive] = {};
  std::uint32_t empty = 0;
  double empty_mean = 0;
  std::vector<double> means;
  for (unsigned round = 0; round <= rounds; ++round) {  // round 0 warms up
    for (std::uint32_t& sample : idle) {
      const std::uint64_t t0 = ticks();
      sample = clamp(ticks() - t0);
    }
    empty = quantile(idle, 0.5);
    empty_mean = mean(idle);
    for (std::uint32_t& sample : samples) {
      void*& slot = alive[random.next() >> 58];
      const std::size_t size = random.size(6, 23);
      const std::uint64_t t0 = ticks();
      a.release(slot);
      slot = a.allocate(size);
      sample = clamp(ticks() - t0);
      require(slot, size);
    }
    if (round != 0) {
      const Tail t = tail(samples, empty, empty_mean);
      means.push_back(t.mean);
      p50.push_back(t.p50);
      p99.push_back(t.p99);
      p9999.push_back(t.p9999);
      max.push_back(t.max);
    }
  }
  for (void* block : alive) {
    a.release(block);
  }
  report.add("mixed", "64 alive, free + malloc",
             {{"mean", spread(means).median, "ns"},
              {"p50", spread(p50).median, "ns"},
              {"p99", spread(p99).median, "ns"},
              {"p99.99", spread(p9999).median, "ns"},
              {"max", spread(max).median, "ns"},
              {"max_of_rounds", spread(max).max, "ns"}});
  const auto add_floor = [&](const char* name) {
    const Tail floor = tail(idle, empty, empty_mean);
    report.add("mixed", name,
               {{"p50", floor.p50, "ns"},
                {"p99", floor.p99, "ns"},
                {"p99.99", floor.p9999, "ns"},
                {"max", floor.max, "ns"},
                {"subtracted", empty * ns_per_tick(), "ns"}});
  };
  add_floor("empty interval");
  // What interrupts and the host alone add: they hit long intervals more often than short ones.
  const auto length = static_cast<std::uint64_t>(spread(means).median / ns_per_tick());
  for (std::uint32_t& sample : idle) {
    const std::uint64_t t0 = ticks();
    while (ticks() - t0 < length) {
    }
    sample = clamp(ticks() - t0);
  }
  add_floor("interval of that mean");
}

void run_waste(const Allocator& a, Report& report) {
  struct Range {
    std::size_t low, high, step;
  };
  for (const Range r : {Range{1, 1024, 1}, {1025, 4096, 1}, {4097, 65536, 61}, {65537, 4U << 20, 4093}}) {
    double worst = 0;
    std::size_t worst_size = 0;
    std::size_t most_added = 0;
    for (std::size_t size = r.low; size <= r.high; size += r.step) {
      void* const block = a.allocate(size);
      require(block, size);
      const std::size_t granted = a.usable_size(block);
      a.release(block);
      const double ratio = static_cast<double>(granted) / static_cast<double>(size);
      most_added = granted - size > most_added ? granted - size : most_added;
      if (ratio > worst) {
        worst = ratio;
        worst_size = size;
      }
    }
    report.add("waste", std::to_string(r.low) + ".." + std::to_string(r.high) + " B",
               {{"worst_ratio", worst},
                {"at", static_cast<double>(worst_size), "B"},
                {"most_added", static_cast<double>(most_added), "B"}});
  }
}

extern "C" RTPOOL_ONCE void measured_misses(const Allocator& a, void** blocks, const std::size_t* sizes,
                                             std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    blocks[i] = a.allocate(sizes[i]);
  }
}

void run_misses(const Allocator& a, Report& report, std::size_t blocks) {
  constexpr std::size_t k_misses = 1000;
  // Blocks of 5 to 12 pages, every second one freed in random order: free runs that cannot merge, of sizes a later
  // request can fit.
  Random random(7);
  std::vector<void*> alive;
  std::vector<void*> doomed;
  for (std::size_t i = 0; i < 2 * blocks; ++i) {
    const std::size_t size = (5 + (random.next() & 7)) * 4096;
    void* const block = a.allocate(size);
    require(block, size);
    ((i & 1) != 0 ? doomed : alive).push_back(block);
  }
  for (std::size_t i = doomed.size(); i > 1; --i) {
    std::swap(doomed[i - 1], doomed[random.next() % i]);
  }
  for (void* block : doomed) {
    a.release(block);
  }
  std::vector<std::size_t> sizes(k_misses);
  for (std::size_t i = 0; i < k_misses; ++i) {
    sizes[i] = (13 + i % 64) * 4096;
  }
  std::vector<void*> taken(k_misses);
  const std::uint64_t t0 = now_ns();
  measured_misses(a, taken.data(), sizes.data(), k_misses);
  const std::uint64_t took = now_ns() - t0;
  report.add("misses", std::to_string(blocks) + " alive and free",
             {{"mean", static_cast<double>(took) / k_misses, "ns"}});
}

extern "C" RTPOOL_ONCE void measured_hits(const Allocator& a, std::size_t size, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    void* const block = a.allocate(size);
    escape(block);
    a.release(block);
  }
}

void run_hits(const Allocator& a, std::size_t size) {
  for (int i = 0; i < 100; ++i) {
    void* const block = a.allocate(size);
    require(block, size);
    a.release(block);
  }
  measured_hits(a, size, 1000);
}

}  // namespace rtpool::bench
