// What a test of schedules asks of an exploration: nothing broken, nothing left out; its counts are printed.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "explorer.hpp"

namespace rtpool::schedules {

inline void expect_all(const char* name, const Outcome& outcome) {
  std::printf("[ SCHEDULES] %s: %llu schedules, %llu choices, at most %u accesses%s\n", name,
              static_cast<unsigned long long>(outcome.schedules), static_cast<unsigned long long>(outcome.points), outcome.longest,
              outcome.exhausted ? "" : ", not exhaustive");
  testing::Test::RecordProperty("schedules", std::to_string(outcome.schedules));
  std::string order;
  for (const unsigned char step : outcome.schedule) order += std::to_string(step) + " ";
  EXPECT_EQ(outcome.broken, "") << "in the order " << order;
  EXPECT_TRUE(outcome.exhausted) << "stopped after " << outcome.schedules;
  EXPECT_GT(outcome.schedules, 1U);
}

}  // namespace rtpool::schedules
