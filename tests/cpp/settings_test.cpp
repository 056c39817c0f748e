// Promises of realtime/settings.hpp: each refusal stands alone, everything in force is taken back.
#include "realtime/settings.hpp"

#include <gtest/gtest.h>

#include "fake_scheduling.hpp"

namespace rtpool::realtime {
namespace {

class SettingsTest : public ::testing::Test {
 protected:
  SettingsTest() {
    request.set_affinity = true;
    CPU_ZERO(&request.affinity);
    CPU_SET(1, &request.affinity);
    request.lock_process = true;
    request.wakeup_latency = 0;
    request.precise_timer = true;
    request.priority = 80;
  }
  void expect_untouched() {
    EXPECT_EQ(os.scheduling.policy, os::Policy::other);
    EXPECT_EQ(os.scheduling.priority, 0);
    EXPECT_EQ(CPU_COUNT(&os.affinity), 2);
    EXPECT_FALSE(os.locked);
    EXPECT_EQ(os.latency, -1);
    EXPECT_EQ(os.slack, 50'000U);
  }

  testing::FakeScheduling os;
  SettingsRequest request;
  Settings settings{os};
};

TEST_F(SettingsTest, NothingAskedNothingDone) {
  EXPECT_TRUE(settings.apply({}));
  EXPECT_EQ(settings.restore(), 0);
  EXPECT_TRUE(os.calls.empty());
}

TEST_F(SettingsTest, AllInForceAndAllTakenBackInReverse) {
  EXPECT_TRUE(settings.apply(request));
  EXPECT_EQ(os.scheduling.policy, os::Policy::fifo);
  EXPECT_EQ(os.scheduling.priority, 80);
  EXPECT_EQ(CPU_COUNT(&os.affinity), 1);
  EXPECT_TRUE(os.locked);
  EXPECT_EQ(os.latency, 0);
  EXPECT_EQ(os.slack, 1U);
  EXPECT_EQ(settings.restore(), 0);
  expect_untouched();
  const std::vector<std::string> expected = {"affinity", "lock", "latency", "slack", "scheduling",
                                             "scheduling", "slack", "release latency", "unlock", "affinity"};
  EXPECT_EQ(os.calls, expected);
  EXPECT_EQ(settings.restore(), 0);
  EXPECT_EQ(os.calls, expected);
}

struct Refusal {
  Setting setting;
  int testing::FakeScheduling::*field;
  int error;
};

class Refused : public SettingsTest, public ::testing::WithParamInterface<Refusal> {};

TEST_P(Refused, IsReportedAndTheOthersAreInForce) {
  const Refusal refusal = GetParam();
  os.*refusal.field = refusal.error;
  EXPECT_FALSE(settings.apply(request));
  for (std::size_t i = 0; i < k_settings; ++i) {
    const auto setting = static_cast<Setting>(i);
    EXPECT_TRUE(settings.asked(setting));
    EXPECT_EQ(settings.in_force(setting), setting != refusal.setting);
    EXPECT_EQ(settings.error(setting), setting == refusal.setting ? refusal.error : 0);
  }
  EXPECT_EQ(settings.restore(), 0);
  expect_untouched();
}

INSTANTIATE_TEST_SUITE_P(Each, Refused,
                         ::testing::Values(Refusal{Setting::affinity, &testing::FakeScheduling::refuse_affinity, EINVAL},
                                           Refusal{Setting::lock_process, &testing::FakeScheduling::refuse_lock, ENOMEM},
                                           Refusal{Setting::wakeup_latency, &testing::FakeScheduling::refuse_latency, EACCES},
                                           Refusal{Setting::timer_slack, &testing::FakeScheduling::refuse_slack, EINVAL},
                                           Refusal{Setting::priority, &testing::FakeScheduling::refuse_scheduling, EPERM}));

TEST_F(SettingsTest, ApplyingAgainTakesTheFirstBackBefore) {
  settings.apply(request);
  SettingsRequest other;
  other.priority = 10;
  EXPECT_TRUE(settings.apply(other));
  EXPECT_FALSE(os.locked);
  EXPECT_EQ(os.scheduling.priority, 10);
  settings.restore();
  expect_untouched();
}

}  // namespace
}  // namespace rtpool::realtime
