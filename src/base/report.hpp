// A report of several lines on standard error, written as one piece.
//
// Every line begins with "rtpool: ", so that it can be told from the program's own output. Thread rule: an object belongs
// to one thread; reports of several threads do not mix, as each is one write(2). Cost: nothing is allocated; as safe in a
// signal handler as vsnprintf is. Failure: what does not fit into 4000 bytes is cut.
#pragma once

#include <cstddef>

namespace rtpool::base {

class Report {
 public:
  // Adds a line; the end of line is added to it.
  void line(const char* format, ...) noexcept __attribute__((format(printf, 2, 3)));
  void write() noexcept;

 private:
  static constexpr std::size_t k_room = 4000;
  char text_[k_room];
  std::size_t used_ = 0;
};

}  // namespace rtpool::base
