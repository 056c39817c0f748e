// Workloads of several threads: scaling of independent threads, one thread freeing what another allocates.
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "measure.hpp"
#include "workloads.hpp"

namespace rtpool::bench {
namespace {

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

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

// Wall time of `threads` threads that do `count` pairs each, from the moment all of them have warmed up.
// `low == high` means one size; otherwise each thread draws its own sizes from 2^low to below 2^high.
std::uint64_t time_threads(const Allocator& a, unsigned threads, unsigned low, unsigned high, std::uint64_t count) {
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::uint64_t> began(threads);
  std::vector<std::uint64_t> ended(threads);
  std::vector<std::thread> running;
  for (unsigned t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      pin_to(t);
      Random random(t + 1);
      constexpr std::size_t k_alive = 16;
      void* alive[k_alive] = {};
      const auto work = [&](std::uint64_t n) {
        if (low == high) {
          for (std::uint64_t i = 0; i < n; ++i) {
            void* const block = a.allocate(std::size_t{1} << low);
            escape(block);
            a.release(block);
          }
          return;
        }
        for (std::uint64_t i = 0; i < n; ++i) {
          void*& slot = alive[random.next() >> 60];
          a.release(slot);
          slot = a.allocate(random.size(low, high));
          escape(slot);
        }
      };
      work(count / 8);
      ready.fetch_add(1);
      while (!go.load(std::memory_order_acquire)) {
        relax();
      }
      began[t] = now_ns();
      work(count);
      ended[t] = now_ns();
      for (void* block : alive) {
        a.release(block);
      }
    });
  }
  while (ready.load() != threads) {
    std::this_thread::yield();
  }
  go.store(true, std::memory_order_release);
  for (std::thread& thread : running) {
    thread.join();
  }
  return *std::max_element(ended.begin(), ended.end()) - *std::min_element(began.begin(), began.end());
}

// A ring for one writer and one reader. Blocks nowhere but on itself.
class Ring {
 public:
  static constexpr std::size_t k_slots = 1024;
  void push(void* block) noexcept {
    const std::size_t at = tail_.load(std::memory_order_relaxed);
    while (at - head_.load(std::memory_order_acquire) == k_slots) {
      relax();
    }
    slots_[at % k_slots] = block;
    tail_.store(at + 1, std::memory_order_release);
  }
  void* pop() noexcept {
    const std::size_t at = head_.load(std::memory_order_relaxed);
    while (tail_.load(std::memory_order_acquire) == at) {
      relax();
    }
    void* const block = slots_[at % k_slots];
    head_.store(at + 1, std::memory_order_release);
    return block;
  }

 private:
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
  alignas(64) void* slots_[k_slots] = {};
};

struct Consumed {
  double voluntary_switches = 0;
  double free_p50 = 0;
  double free_p9999 = 0;
  double free_max = 0;
};

}  // namespace

void run_threads(const Allocator& a, Report& report, unsigned rounds) {
  struct Case {
    const char* label;
    unsigned low, high;
    std::uint64_t count;
  };
  const unsigned most = usable_cpus() < 4 ? usable_cpus() : 4;
  if (most < 2) {
    std::fprintf(stderr, "core_bench: threads: only one processor, nothing to compare\n");
    return;
  }
  for (const Case c : {Case{"64 B", 6, 6, 1'000'000},
                       {"4 KiB", 12, 12, 1'000'000},
                       {"64 KiB", 16, 16, 1'000'000},
                       {"1 MiB", 20, 20, 1'000'000},
                       {"64 B..64 KiB, 16 alive", 6, 16, 300'000}}) {
    std::vector<double> one;
    std::vector<double> many;
    std::vector<double> ratio;
    // Slow allocators get fewer operations: a round should stay near 100 ms.
    std::uint64_t count = c.count / 50;
    const double probe = static_cast<double>(time_threads(a, most, c.low, c.high, count)) / static_cast<double>(count);
    count = std::min<std::uint64_t>(c.count, static_cast<std::uint64_t>(1e8 / (probe + 1)) + 1);
    for (unsigned round = 0; round < rounds; ++round) {
      one.push_back(static_cast<double>(time_threads(a, 1, c.low, c.high, count)) / static_cast<double>(count));
      many.push_back(static_cast<double>(time_threads(a, most, c.low, c.high, count)) / static_cast<double>(count));
      ratio.push_back(most * one.back() / many.back());
    }
    const Spread scaling = spread(ratio);
    report.add("threads", c.label,
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

// Wall time a block of one thread that allocates and another that frees, after an eighth of them; before, as many blocks as can be
// under way are alive once, so that no memory is taken from the kernel within the time.
double time_handoff(const Allocator& a, std::size_t size, std::size_t blocks) {
  const auto ring = std::make_unique<Ring>();
  std::uint64_t began = 0;
  std::thread consumer([&] {
    pin_to(1);
    for (std::size_t i = 0; i < blocks + blocks / 8; ++i) {
      a.release(ring->pop());
    }
  });
  std::thread producer([&] {
    pin_to(0);
    std::vector<void*> first(Ring::k_slots + 64);
    for (void*& block : first) {
      block = a.allocate(size);
    }
    for (void* const block : first) {
      a.release(block);
    }
    for (std::size_t i = 0; i < blocks + blocks / 8; ++i) {
      if (i == blocks / 8) {
        began = now_ns();
      }
      ring->push(a.allocate(size));
    }
  });
  producer.join();
  consumer.join();
  return static_cast<double>(now_ns() - began) / static_cast<double>(blocks);
}

void run_handoff(const Allocator& a, Report& report, unsigned rounds) {
  for (const std::size_t size : {std::size_t{64}, std::size_t{512}, std::size_t{4} << 10, std::size_t{32} << 10, std::size_t{256} << 10,
                                 std::size_t{1} << 20}) {
    // Slow allocators get fewer blocks: a round should stay near 50 ms.
    const double probe = time_handoff(a, size, 4000);
    const auto blocks = static_cast<std::size_t>(5e7 / (probe + 50)) + 1000;
    std::vector<double> values;
    for (unsigned round = 0; round < rounds; ++round) {
      values.push_back(time_handoff(a, size, blocks));
    }
    const Spread s = spread(values);
    report.add("handoff", size_text(size), {{"median", s.median, "ns"}, {"min", s.min, "ns"}, {"max", s.max, "ns"}});
  }
}

}  // namespace rtpool::bench
