#include "report.hpp"

#include <cstdio>

namespace rtpool::bench {

std::string size_text(std::size_t bytes) {
  static constexpr const char* k_units[] = {"B", "KiB", "MiB", "GiB"};
  unsigned unit = 0;
  while (unit < 3 && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + " " + k_units[unit];
}

void Report::add(const char* suite, const std::string& label, std::initializer_list<Field> fields) {
  char text[64];
  if (json_) {
    std::string row = std::string("{\"suite\": \"") + suite + "\", \"label\": \"" + label + "\"";
    for (const Field& field : fields) {
      std::snprintf(text, sizeof text, "%.6g", field.value);
      row += std::string(", \"") + field.name + "\": " + text;
    }
    rows_.push_back(row + "}");
    return;
  }
  if (last_suite_ != suite) {
    last_suite_ = suite;
    std::printf("\n%s\n", suite);
  }
  std::printf("  %-22s", label.c_str());
  for (const Field& field : fields) {
    std::printf("  %s %.4g%s%s", field.name, field.value, *field.unit != '\0' ? " " : "", field.unit);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void Report::finish(const char* allocator) const {
  if (!json_) {
    return;
  }
  std::printf("{\"allocator\": \"%s\", \"rows\": [\n", allocator);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    std::printf("%s%s\n", rows_[i].c_str(), i + 1 < rows_.size() ? "," : "");
  }
  std::printf("]}\n");
}

}  // namespace rtpool::bench
