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
    request.priority = 80;
  }
  void expect_untouched() {
    EXPECT_EQ(os.scheduling.policy, os::Policy::other);
    EXPECT_EQ(os.scheduling.priority, 0);
    EXPECT_EQ(CPU_COUNT(&os.affinity), 2);
    EXPECT_FALSE(os.locked);
    EXPECT_EQ(os.latency, -1);
    EXPECT_FALSE(os.children.affinity || os.children.scheduling || os.scheduling.reset_on_fork);
  }

  test::FakeScheduling os;
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
  EXPECT_EQ(settings.restore(), 0);
  expect_untouched();
  const std::vector<std::string> expected = {"affinity", "lock", "latency", "scheduling", "children",
                                             "scheduling", "release latency", "unlock", "affinity"};
  EXPECT_EQ(os.calls, expected);
  EXPECT_EQ(settings.restore(), 0);
  EXPECT_EQ(os.calls, expected);
}

struct Refusal {
  Setting setting;
  int test::FakeScheduling::*field;
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
                         ::testing::Values(Refusal{Setting::affinity, &test::FakeScheduling::refuse_affinity, EINVAL},
                                           Refusal{Setting::lock_process, &test::FakeScheduling::refuse_lock, ENOMEM},
                                           Refusal{Setting::wakeup_latency, &test::FakeScheduling::refuse_latency, EACCES},
                                           Refusal{Setting::priority, &test::FakeScheduling::refuse_scheduling, EPERM},
                                           Refusal{Setting::children, &test::FakeScheduling::refuse_children, ENOSYS}));

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

TEST_F(SettingsTest, ChildrenBeginAsWithoutTheSection) {
  settings.apply(request);
  EXPECT_TRUE(os.scheduling.reset_on_fork);
  EXPECT_TRUE(os.children.affinity && os.children.scheduling);
  EXPECT_EQ(CPU_COUNT(&os.children.own_affinity), 1);
  EXPECT_EQ(CPU_COUNT(&os.children.child_affinity), 2);
  EXPECT_EQ(os.children.own_scheduling.priority, 80);
  EXPECT_EQ(os.children.child_scheduling.policy, os::Policy::other);
}

TEST_F(SettingsTest, ChildrenInheritWhereThatIsAsked) {
  request.inherit = true;
  settings.apply(request);
  EXPECT_FALSE(os.scheduling.reset_on_fork);
  EXPECT_FALSE(os.children.affinity || os.children.scheduling);
  settings.restore();
  expect_untouched();
}

TEST_F(SettingsTest, TheKernelsFlagIsLeftAloneWhereItCouldNotBeTakenBack) {
  os.privileged = false;
  settings.apply(request);
  EXPECT_FALSE(os.scheduling.reset_on_fork);
  EXPECT_TRUE(os.children.scheduling);
  settings.restore();
  expect_untouched();
}

TEST_F(SettingsTest, AndWhereChildrenAreNotPlain) {
  os.scheduling.nice = 5;
  settings.apply(request);
  EXPECT_FALSE(os.scheduling.reset_on_fork);
  EXPECT_EQ(os.children.child_scheduling.nice, 5);
}

TEST_F(SettingsTest, ChildrenOfSectionsInSectionsBeginAsOutsideOfAll) {
  settings.apply(request);
  Settings inner(os);
  SettingsRequest more;
  more.set_affinity = true;
  CPU_ZERO(&more.affinity);
  CPU_SET(0, &more.affinity);
  more.priority = 90;
  inner.apply(more);
  EXPECT_EQ(CPU_COUNT(&os.children.child_affinity), 2);
  EXPECT_TRUE(CPU_EQUAL(&os.children.own_affinity, &more.affinity));
  EXPECT_EQ(os.children.child_scheduling.policy, os::Policy::other);
  EXPECT_EQ(os.children.own_scheduling.priority, 90);
  inner.restore();
  EXPECT_TRUE(CPU_EQUAL(&os.children.own_affinity, &request.affinity));
  EXPECT_EQ(os.children.own_scheduling.priority, 80);
  more.inherit = true;
  inner.apply(more);
  EXPECT_FALSE(os.children.affinity || os.children.scheduling);
  inner.restore();
  EXPECT_TRUE(os.children.affinity && os.children.scheduling);
  settings.restore();
  expect_untouched();
}

TEST_F(SettingsTest, TheChildrenOfAThreadThatResetsThemArePlain) {
  os.scheduling = {os::Policy::fifo, 3, 0, true};
  settings.apply(request);
  EXPECT_TRUE(os.scheduling.reset_on_fork);
  EXPECT_EQ(os.children.child_scheduling.policy, os::Policy::other);
}

}  // namespace
}  // namespace rtpool::realtime
