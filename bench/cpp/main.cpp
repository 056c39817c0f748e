// core_bench_{malloc,rtpool,interface}: how fast an allocator is without Python.
//
//   core_bench_rtpool [--suite pairs,batches,mixed,threads,handoff,producer_consumer,waste] [--rounds N] [--quick] [--json]
//   core_bench_rtpool --suite scaling               for machines of many processors
//   core_bench_rtpool --suite misses --blocks N     run under callgrind with --toggle-collect=measured_misses
//   core_bench_rtpool --suite hits --size N         the same with --toggle-collect=measured_hits
//   LD_PRELOAD=libjemalloc.so.2 core_bench_malloc ...
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "measure.hpp"
#include "workloads.hpp"

namespace {

struct Arguments {
  std::string suites = "pairs,batches,mixed,threads,handoff,producer_consumer,waste";
  unsigned rounds = 21;
  std::size_t blocks = 10;
  std::size_t size = 1000;
  bool json = false;
};

[[noreturn]] void usage(const char* problem) {
  std::fprintf(
      stderr,
      "core_bench: %s\nusage: core_bench [--suite NAME[,NAME...]] [--rounds N] [--quick] [--json] [--blocks N] [--size N]\n"
      "suites: pairs batches mixed threads handoff producer_consumer scaling waste misses hits\n",
      problem);
  std::exit(2);
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : (usage((flag + " needs a value").c_str()), nullptr); };
    if (flag == "--suite") {
      arguments.suites = value();
    } else if (flag == "--rounds") {
      arguments.rounds = static_cast<unsigned>(std::strtoul(value(), nullptr, 10));
    } else if (flag == "--blocks") {
      arguments.blocks = std::strtoul(value(), nullptr, 10);
    } else if (flag == "--size") {
      arguments.size = std::strtoul(value(), nullptr, 10);
    } else if (flag == "--quick") {
      arguments.rounds = 5;
    } else if (flag == "--json") {
      arguments.json = true;
    } else {
      usage(("unknown option " + flag).c_str());
    }
  }
  if (arguments.rounds == 0) {
    usage("--rounds must be at least 1");
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace rtpool::bench;
  const Arguments arguments = parse(argc, argv);
  usable_cpus();  // read the affinity before pinning narrows it
  pin_to(0);
  ns_per_tick();
  const Allocator& a = allocator();
  Report report(arguments.json);
  std::string rest = arguments.suites + ",";
  for (std::size_t comma; (comma = rest.find(',')) != std::string::npos; rest.erase(0, comma + 1)) {
    const std::string suite = rest.substr(0, comma);
    if (suite == "pairs") {
      run_pairs(a, report, arguments.rounds);
    } else if (suite == "batches") {
      run_batches(a, report, arguments.rounds);
    } else if (suite == "mixed") {
      run_mixed(a, report, arguments.rounds < 5 ? arguments.rounds : 5);
    } else if (suite == "threads") {
      run_threads(a, report, arguments.rounds < 7 ? arguments.rounds : 7);
    } else if (suite == "handoff") {
      run_handoff(a, report, arguments.rounds < 5 ? arguments.rounds : 5);
    } else if (suite == "producer_consumer") {
      run_producer_consumer(a, report, arguments.rounds);
    } else if (suite == "scaling") {
      run_scaling(a, report, arguments.rounds);
    } else if (suite == "waste") {
      run_waste(a, report);
    } else if (suite == "misses") {
      run_misses(a, report, arguments.blocks);
    } else if (suite == "hits") {
      run_hits(a, arguments.size);
    } else {
      usage(("unknown suite " + suite).c_str());
    }
  }
  report.finish(a.name);
  return 0;
}
