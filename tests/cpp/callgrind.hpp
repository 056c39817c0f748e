// Instructions, branches and accesses to memory of some functions, counted by Callgrind: the same on every run, whatever else the machine does.
//
// The test program runs itself inside Callgrind with a piece of work and its turns in its environment; what `act_as_child`
// is given does the work there, instead of the tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#if __has_include(<valgrind/callgrind.h>)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <valgrind/callgrind.h>
#pragma GCC diagnostic pop
#endif

namespace rtpool::test {

#ifdef CALLGRIND_ZERO_STATS
inline constexpr bool k_knows_callgrind = true;
inline void count_from_here() noexcept { CALLGRIND_ZERO_STATS; }
#else
inline constexpr bool k_knows_callgrind = false;
inline void count_from_here() noexcept {}
#endif

// Of processors that the bounds were set for, and of the core as it is released.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && RTPOOL_CORE_OPTIMIZATION >= 2
inline constexpr bool k_comparable = true;
#else
inline constexpr bool k_comparable = false;
#endif

struct Counted {
  double instructions = -1;  // below 0: Callgrind did not say
  double branches = -1;      // conditional ones
  double mispredicted = -1;
};

// Instructions that access data. One that changes what lies in memory is one of them.
struct Accesses {
  double reads = -1;
  double writes = -1;
};

class Callgrind {
 public:
  // Counts inside of these functions alone, whose names are as Callgrind writes them. `subject`: of `act_as_child`.
  Callgrind(std::string subject, std::vector<std::string> functions)
      : subject_(std::move(subject)), functions_(std::move(functions)) {}

  // Of one of `more` turns, after `first` turns.
  Counted count(const std::string& work, unsigned long first, unsigned long more) const {
    const std::vector<double> turn = a_turn("--branch-sim=yes", work, first, more);
    return turn.empty() ? Counted{} : Counted{turn[0], turn[1], turn[2]};
  }
  Accesses count_accesses(const std::string& work, unsigned long first, unsigned long more) const {
    const std::vector<double> turn = a_turn("--cache-sim=yes", work, first, more);
    return turn.empty() ? Accesses{} : Accesses{turn[1], turn[2]};
  }

 private:
  // The first three counts.
  std::vector<double> a_turn(const std::string& what, const std::string& work, unsigned long first, unsigned long more) const {
    std::vector<double> all = run(what, work, std::to_string(first) + " " + std::to_string(more));
    if (all.empty()) return all;
    all.resize(3);  // zeros at the end are not printed
    for (double& count : all) count /= static_cast<double>(more);
    return all;
  }

  std::vector<double> run(const std::string& what, const std::string& work, const std::string& turns) const {
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return {};
    std::string command = "RTPOOL_COUNTED='" + subject_ + " " + work + "' RTPOOL_TURNS='" + turns +
                          "' valgrind --tool=callgrind " + what + " --callgrind-out-file=/dev/null";
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

  std::string subject_;
  std::vector<std::string> functions_;
};

class CallgrindTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!k_comparable) GTEST_SKIP() << "the bounds are those of x86-64 and of a core that GCC optimised";
    if (!k_knows_callgrind) GTEST_SKIP() << "built without valgrind/callgrind.h; on Debian and Ubuntu: apt-get install valgrind";
    if (std::system("valgrind --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no valgrind; on Debian and Ubuntu: apt-get install valgrind";
  }
};

// The turns of a child: the first are not counted.
class Turns {
 public:
  Turns(unsigned long first, unsigned long more) noexcept : first_(first), more_(more) {}

  template <class Turn>
  void take(Turn turn) const {
    for (unsigned long i = 0; i < first_; ++i) turn();
    count_from_here();
    for (unsigned long i = 0; i < more_; ++i) turn();
  }

 private:
  unsigned long first_;
  unsigned long more_;
};

// Before the tests: in a child of one of them, on that subject, it does the work and ends.
template <class Act>
bool act_as_child(const std::string& subject, Act act) {
  const char* const work = std::getenv("RTPOOL_COUNTED");
  const char* const turns = std::getenv("RTPOOL_TURNS");
  if (work == nullptr || turns == nullptr || std::string(work).rfind(subject + " ", 0) != 0) return false;
  char* more = nullptr;
  const unsigned long first = std::strtoul(turns, &more, 10);
  act(std::string(work + subject.size() + 1), Turns(first, std::strtoul(more, nullptr, 10)));
  std::_Exit(0);
}

}  // namespace rtpool::test
