// Instructions and branches of some functions, counted by Callgrind: the same on every run, whatever else the machine does.
//
// The test program runs itself inside Callgrind with a piece of work and a number of turns in its environment; what `act_as_child`
// is given does the work there, instead of the tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace rtpool::test {

// Of processors that the bounds were set for, and of the core as it is released.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && RTPOOL_CORE_OPTIMIZATION >= 2 && !defined(RTPOOL_CORE_SANITIZED)
inline constexpr bool k_comparable = true;
#else
inline constexpr bool k_comparable = false;
#endif

struct Counted {
  double instructions = -1;  // below 0: Callgrind did not say
  double branches = -1;      // conditional ones
  double mispredicted = -1;
};

class Callgrind {
 public:
  // Counts inside of these functions alone, whose names are as Callgrind writes them.
  explicit Callgrind(std::vector<std::string> functions) : functions_(std::move(functions)) {}

  // Of one more turn, after `first` turns.
  Counted count(const std::string& work, unsigned long first, unsigned long more) const {
    const std::vector<double> before = run(work, first);
    const std::vector<double> after = run(work, first + more);
    if (before.size() < 3 || after.size() < 3) return {};
    const auto turn = [&](std::size_t i) { return (after[i] - before[i]) / static_cast<double>(more); };
    return {turn(0), turn(1), turn(2)};
  }

 private:
  std::vector<double> run(const std::string& work, unsigned long turns) const {
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return {};
    std::string command = "RTPOOL_COUNTED='" + work + "' RTPOOL_TURNS=" + std::to_string(turns) +
                          " valgrind --tool=callgrind --branch-sim=yes --callgrind-out-file=/dev/null";
    for (const std::string& function : functions_) command += " '--toggle-collect=" + function + "'";
    command += " '" + std::string(self) + "' 2>&1";
    FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return {};
    std::vector<double> collected;
    char line[4096];
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
      const std::string text = line;
      const std::size_t at = text.find("Collected : ");
      if (at == std::string::npos) continue;
      const char* next = text.c_str() + at + 12;
      for (char* end = nullptr;; next = end) {
        const double value = std::strtod(next, &end);
        if (end == next) break;
        collected.push_back(value);
      }
    }
    return ::pclose(pipe) == 0 ? collected : std::vector<double>{};
  }

  std::vector<std::string> functions_;
};

class CallgrindTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!k_comparable) GTEST_SKIP() << "the bounds are those of x86-64 and of a core that GCC optimised";
    if (std::system("valgrind --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no valgrind; on Debian and Ubuntu: apt-get install valgrind";
  }
};

// Before the tests: in a child of one of them it does the work and ends.
template <class Act>
bool act_as_child(Act act) {
  const char* const work = std::getenv("RTPOOL_COUNTED");
  const char* const turns = std::getenv("RTPOOL_TURNS");
  if (work == nullptr || turns == nullptr) return false;
  act(std::string(work), std::strtoul(turns, nullptr, 10));
  std::_Exit(0);
}

}  // namespace rtpool::test
