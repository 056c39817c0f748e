// From one thread to sixteen: what a pair takes where more of them work at once.
#include <algorithm>
#include <string>
#include <vector>

#include "crews.hpp"
#include "measure.hpp"
#include "workloads.hpp"

namespace rtpool::bench {
namespace {

// `crews` threads or pairs of threads that do `count` operations each: nanoseconds an operation.
using Timed = double (*)(const Allocator& a, unsigned crews, Sizes sizes, std::size_t count);

// 1, 2, 4, ... up to `most`, in turns: the machine's speed changes between them.
void measure(const char* suite, Timed timed, const Allocator& a, Report& report, unsigned rounds, Sizes sizes, unsigned most) {
  constexpr double k_round_ns = 1e7;
  struct Row {
    unsigned crews;
    std::size_t count;
    std::vector<double> took;
    std::vector<double> ratio;
  };
  std::vector<Row> rows;
  for (unsigned crews = 1; crews <= most; crews *= 2) {
    // Slow allocators get fewer operations.
    const double probe = timed(a, crews, sizes, 4000);
    const auto count = static_cast<std::size_t>(std::clamp(k_round_ns / (probe + 1), 4000.0, 1e6));
    rows.push_back({crews, count, {}, {}});
  }
  for (unsigned round = 0; round < rounds; ++round) {
    for (Row& row : rows) {
      row.took.push_back(timed(a, row.crews, sizes, row.count));
      row.ratio.push_back(row.crews * rows.front().took.back() / row.took.back());
    }
  }
  for (Row& row : rows) {
    const Spread took = spread(row.took);
    const Spread scaling = spread(row.ratio);
    report.add(suite, std::string(sizes.label) + ", " + std::to_string(row.crews),
               {{"median", took.median, "ns"},
                {"min", took.min, "ns"},
                {"max", took.max, "ns"},
                {"scaling", scaling.median, "x"},
                {"scaling_min", scaling.min, "x"},
                {"scaling_max", scaling.max, "x"}});
  }
}

}  // namespace

void run_scaling(const Allocator& a, Report& report, unsigned rounds) {
  const unsigned most = std::min(usable_cpus(), 16U);
  for (const Sizes sizes : {Sizes{"64 B", 6, 6}, {"64 KiB", 16, 16}, {"1 MiB", 20, 20}, {"64 B..64 KiB, 16 alive", 6, 16}}) {
    measure("own_blocks", time_threads, a, report, rounds, sizes, most);
  }
  for (const Sizes sizes : {Sizes{"64 B..4 KiB", 6, 12}, {"64 B", 6, 6}, {"64 KiB", 16, 16}}) {
    measure("handed_over", time_handoff, a, report, rounds, sizes, most / 2);
  }
}

}  // namespace rtpool::bench
