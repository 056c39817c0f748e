// Several processes at random work on one shared pool, one after the other killed at a step while the rest goes on: what
// the others have stays, nothing is lost, nothing stays locked.
//
// Each has a seed, makes blocks filled with a mark of their own, resizes and frees them, sends them to the others as
// handles, opens what it is sent, recovers, trims and checks. The parent lives through it and begins a new one whenever
// one ended. Every survivor verifies what it has; in the end the pool must be empty. Each step by itself:
// shared_recovery_test.cpp.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "shared/step.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

// A handle under way and what its block holds, or nothing. A process is killed at steps only, so never while it is here.
struct Place {
  std::atomic<unsigned> state{0};  // 0 nothing, 1 somebody is at it, 2 a handle
  BlockRef ref;
  Tenancy sender;
  std::size_t size = 0;
  unsigned char mark = 0;
};

struct Town {
  std::array<Place, 12> places;
  std::atomic<unsigned> turn{0};  // children up to this one may begin
  Address address;
  std::array<std::atomic<unsigned>, static_cast<std::size_t>(Step::count)> killed_at{};
};

Town* g_town = nullptr;
unsigned g_steps_left = 0;        // before the process is killed; 0: it is not
Step g_kind = Step::count;  // steps of this kind are counted; `count`: all

void die_in_town(Step at) {
  if (g_kind != Step::count && g_kind != at) return;
  if (g_steps_left == 0 || --g_steps_left != 0) return;
  g_town->killed_at[static_cast<std::size_t>(at)].fetch_add(1);
  ::raise(SIGKILL);
}

class Citizen {
 public:
  Citizen(SharedPool* pool, std::uint64_t seed) : pool_(pool), random_(seed) {}

  // False: something is not as it should be; `why` says what.
  bool act() {
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2:
      case 3: return make();
      case 4:
      case 5:
      case 6: return things_.empty() || give_back(take_one());
      case 7: return things_.empty() || resize(things_[random_() % things_.size()]);
      case 8:
      case 9:
      case 10: return things_.empty() || send();
      case 11:
      case 12:
      case 13: return receive();
      case 14: return hold_once_more();
      default: return look_after();
    }
  }
  bool give_all_back() {
    while (!things_.empty()) {
      if (!give_back(take_one())) return false;
    }
    return true;
  }
  const char* why = "";

 private:
  struct Thing {
    unsigned char* block;
    std::size_t size;
    unsigned char mark;
    bool shared;
    BlockRef ref;
  };

  bool expect(bool holds, const char* what) {
    if (!holds) why = what;
    return holds;
  }
  bool intact(const Thing& thing, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      if (thing.block[i] != thing.mark) return expect(false, "a block was damaged");
    }
    return true;
  }
  std::size_t some_size() { return 1 + random_() % (std::size_t{1} << random_() % 18); }
  Thing take_one() {
    std::swap(things_[random_() % things_.size()], things_.back());
    const Thing thing = things_.back();
    things_.pop_back();
    return thing;
  }

  bool make() {
    if (things_.size() > 25) return true;
    Thing thing{nullptr, some_size(), static_cast<unsigned char>(random_()), false, {}};
    thing.block = static_cast<unsigned char*>(pool_->allocate(thing.size));
    if (thing.block == nullptr) return true;
    std::memset(thing.block, thing.mark, thing.size);
    things_.push_back(thing);
    return true;
  }
  bool give_back(const Thing& thing) {
    if (!intact(thing, thing.size)) return false;
    if (thing.shared) pool_->drop(thing.ref, pool_->lineage());
    else pool_->release(thing.block);
    return true;
  }
  bool resize(Thing& thing) {
    if (thing.shared) return true;
    const std::size_t size = some_size();
    auto* const moved = static_cast<unsigned char*>(pool_->resize(thing.block, size));
    if (moved == nullptr) return true;
    thing.block = moved;
    if (!intact(thing, std::min(size, thing.size))) return false;
    thing.size = size;
    std::memset(thing.block, thing.mark, thing.size);
    return true;
  }
  bool send() {
    Place& place = g_town->places[random_() % g_town->places.size()];
    if (place.state.load() != 0) return true;
    Thing thing = take_one();
    BlockRange range;
    if (!thing.shared) {
      if (pool_->share(thing.block, &thing.ref, &range) != 0) return give_back(thing);
      pool_->release(thing.block);  // the array; the hold of `share` stays
      thing.shared = true;
    }
    Tenancy sender;
    if (!expect(pool_->depart(thing.ref, &sender) == 0, "a block that is held cannot be sent")) return false;
    unsigned nothing = 0;
    if (place.state.compare_exchange_strong(nothing, 1)) {
      place.ref = thing.ref;
      place.sender = sender;
      place.size = thing.size;
      place.mark = thing.mark;
      place.state.store(2);
    } else if (!open(thing, sender) || !give_back(thing)) {
      return false;
    }
    return give_back(thing);
  }
  bool open(Thing& thing, Tenancy sender) {
    BlockRange range;
    if (!expect(pool_->arrive(thing.ref, sender, &range) == 0, "a handle under way finds no block")) return false;
    thing.block = reinterpret_cast<unsigned char*>(pool_->data() + range.offset);
    return expect(range.bytes >= thing.size, "a block became smaller under way") && intact(thing, thing.size);
  }
  bool receive() {
    Place& place = g_town->places[random_() % g_town->places.size()];
    unsigned handle = 2;
    if (!place.state.compare_exchange_strong(handle, 1)) return true;
    Thing thing{nullptr, place.size, place.mark, true, place.ref};
    const Tenancy sender = place.sender;
    place.state.store(0);
    if (!open(thing, sender)) return false;
    things_.push_back(thing);
    return true;
  }
  bool hold_once_more() {
    for (const Thing& thing : things_) {
      BlockRange range;
      if (!thing.shared) continue;
      if (!expect(pool_->hold(thing.ref, &range) == 0, "a held block cannot be held once more")) return false;
      pool_->drop(thing.ref, pool_->lineage());
      break;
    }
    return true;
  }
  bool look_after() {
    switch (random_() % 4) {
      case 0: (void)pool_->recover(); return true;
      case 1: (void)pool_->trim(); return true;
      case 2:
        if (void* const block = pool_->allocate(pool_->geometry().data_bytes / 2)) pool_->release(block);
        return true;
      default: {
        const pool::CheckResult check = pool_->check();
        if (!check.ok) std::fprintf(stderr, "%s: %s\n", check.invariant, check.text);
        return expect(check.ok, "the check");
      }
    }
  }

  SharedPool* pool_;
  std::mt19937_64 random_;
  std::vector<Thing> things_;
};

// What a child does: works until it is killed, or through, and then ends with what it has or without.
int live_in_town(std::uint64_t seed, unsigned turn) {
  std::mt19937_64 random(seed);
  for (int tries = 0; g_town->turn.load() < turn; ++tries) {
    if (tries > static_cast<int>(test::patience(15'000))) return 4;
    ::usleep(1000);
  }
  const CreateResult result = SharedPool::attach_address(g_town->address, Options{}, test::machine_shared_memory());
  if (result.pool == nullptr) return 2;
  Citizen citizen(result.pool, random());
  // Killed at any step, at one of a kind, which some kinds never come to, or not at all.
  const bool any = random() % 4 == 0;
  g_kind = any ? Step::count : static_cast<Step>(random() % static_cast<unsigned>(Step::count));
  g_steps_left = random() % 8 == 0 ? 0 : static_cast<unsigned>(1 + random() % (any ? 2000 : 12));
  step_hook = die_in_town;
  bool well = true;
  for (unsigned left = 200 + static_cast<unsigned>(random() % 1000); left != 0 && well; --left) well = citizen.act();
  if (well && random() % 2 == 0) well = citizen.give_all_back();
  step_hook = nullptr;
  if (!well) std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(seed), citizen.why);
  return well ? 0 : 3;
}

constexpr unsigned k_children = 10;
constexpr unsigned k_at_once = 3;

// The parent works on; whenever a child ends, the next one may begin. With `inherit` children are forked from a process
// that has the pool open and blocks in it, without, they are strangers to it.
void play_town(std::uint64_t seed, bool inherit, unsigned* kills) {
  std::mt19937_64 random(seed);
  g_town->turn = 0;
  std::vector<pid_t> children;
  const auto begin_child = [&] {
    const auto turn = static_cast<unsigned>(children.size() + 1);
    children.push_back(start_child([child_seed = random(), turn] { return live_in_town(child_seed, turn); }));
  };
  while (!inherit && children.size() < k_children) begin_child();
  SharedPool* const pool = make_pool(std::size_t{1} << (20 + seed % 3));
  ASSERT_NE(pool, nullptr);
  g_town->address = pool->address();
  Citizen citizen(pool, random());
  unsigned ended = 0;
  for (unsigned begun = 0; ended < k_children;) {
    while (begun < k_children && begun - ended < k_at_once) {
      if (inherit) begin_child();
      g_town->turn = ++begun;
    }
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(citizen.act()) << citizen.why << ", seed " << seed;
    int status = 0;
    const pid_t child = ::waitpid(-1, &status, WNOHANG);
    ASSERT_GE(child, 0);
    if (child == 0) continue;
    ++ended;
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    *kills += killed ? 1 : 0;
    ASSERT_TRUE(status == 0 || killed) << "status " << status << ", seed " << seed;
    const pool::CheckResult check = pool->check();
    ASSERT_TRUE(check.ok) << check.invariant << ": " << check.text << ", seed " << seed;
  }
  ASSERT_TRUE(citizen.give_all_back()) << citizen.why << ", seed " << seed;
  for (Place& place : g_town->places) place.state = 0;
  (void)pool->recover();
  (void)pool->reclaim(0);  // handles nobody took
  expect_empty(pool);
  EXPECT_EQ(pool->stats().processes, 1U);
  ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed;
  pool->close();
  pool->drop_reference();
}

// RTPOOL_STRESS_SEED and RTPOOL_STRESS_SECONDS make it another run and a longer one.
TEST(Kills, SomeAreKilledWhileOthersWork) {
  void* const memory = ::mmap(nullptr, sizeof(Town), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  g_town = new (memory) Town;
  const auto number = [](const char* name) {
    const char* const text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 0;
  };
  const std::uint64_t first = number("RTPOOL_STRESS_SEED");
  const auto ends = std::chrono::steady_clock::now() + std::chrono::seconds(number("RTPOOL_STRESS_SECONDS"));
  unsigned kills = 0;
  unsigned games = 0;
  for (; games < 8 || std::chrono::steady_clock::now() < ends; ++games) {
    play_town(first + games, games % 2 == 1, &kills);
    if (HasFatalFailure()) return;
  }
  unsigned places = 0;
  for (const auto& count : g_town->killed_at) places += count.load() != 0 ? 1 : 0;
  std::printf("[    KILLS ] seed %llu, games=%u kills=%u steps=%u of %u\n", static_cast<unsigned long long>(first), games,
              kills, places, static_cast<unsigned>(Step::count));
  EXPECT_GT(kills, games);
  ::munmap(memory, sizeof(Town));
}

}  // namespace
}  // namespace rtpool::shared
