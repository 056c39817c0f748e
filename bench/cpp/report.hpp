// Result rows: printed as aligned text while they come in, or as one JSON document at the end.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

namespace rtpool::bench {

struct Field {
  const char* name;
  double value;
  const char* unit = "";
};

class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  // A row of `suite`; `label` tells rows of one suite apart.
  void add(const char* suite, const std::string& label, std::initializer_list<Field> fields);
  // Prints the JSON document on standard output, if JSON was asked for.
  void finish(const char* allocator) const;

 private:
  bool json_;
  std::string last_suite_;
  std::vector<std::string> rows_;
};

// "64 B", "64 KiB", "1 GiB": exact multiples only, else bytes.
std::string size_text(std::size_t bytes);

}  // namespace rtpool::bench
