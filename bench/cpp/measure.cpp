#include "measure.hpp"

#include <pthread.h>
#include <sched.h>

#include <cstdio>
#include <string>

namespace rtpool::bench {

double ns_per_tick() {
  static const double value = [] {
    const std::uint64_t t0 = now_ns();
    const std::uint64_t c0 = ticks();
    while (now_ns() - t0 < 50'000'000U) {
    }
    const std::uint64_t c1 = ticks();
    const std::uint64_t t1 = now_ns();
    return static_cast<double>(t1 - t0) / static_cast<double>(c1 - c0);
  }();
  return value;
}

namespace {

// The first processor of those that share a core with this one, itself where the kernel does not say.
int first_of_core(int cpu) {
  const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
  int first = cpu;
  if (std::FILE* const file = std::fopen(path.c_str(), "r"); file != nullptr) {
    if (std::fscanf(file, "%d", &first) != 1) {
      first = cpu;
    }
    std::fclose(file);
  }
  return first;
}

// The processors the process was given at its start, before any thread was pinned.
const std::vector<int>& cpus() {
  static const std::vector<int> list = [] {
    struct Processor {
      std::ptrdiff_t siblings_before;
      int number;
      bool operator<(const Processor& other) const {
        return siblings_before != other.siblings_before ? siblings_before < other.siblings_before : number < other.number;
      }
    };
    std::vector<Processor> found;
    std::vector<int> cores;
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) {
        const int core = first_of_core(cpu);
        found.push_back({std::count(cores.begin(), cores.end(), core), cpu});
        cores.push_back(core);
      }
    }
    std::sort(found.begin(), found.end());
    std::vector<int> numbers;
    for (const Processor& processor : found) {
      numbers.push_back(processor.number);
    }
    return numbers;
  }();
  return list;
}

}  // namespace

unsigned usable_cpus() { return static_cast<unsigned>(cpus().size()); }

void pin_to(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpus()[cpu % cpus().size()], &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

Spread spread(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

std::uint32_t quantile(std::vector<std::uint32_t>& samples, double q) {
  const auto rank = static_cast<std::size_t>(q * static_cast<double>(samples.size()));
  const auto nth = samples.begin() + static_cast<std::ptrdiff_t>(std::min(rank, samples.size() - 1));
  std::nth_element(samples.begin(), nth, samples.end());
  return *nth;
}

}  // namespace rtpool::bench
