// The pool as callers see it, against a model that knows every live block: its address, size and contents.
//
// An input first chooses how the pool is made, then gives operations: allocate, zeroed, resize, free, wrong pointers of
// every kind, all by one of four threads; threads end and begin; trim, freeze, learn, prepare, clear ahead, fork; and the
// kernel (or the fallback allocator) refuses the call the input names. After every step: the invariants (`Pool::check`),
// the statistics against the model, reports against wrong pointers handed in. Contents are verified whenever a block goes,
// moves or is handed to a forked child.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "actors.hpp"
#include "base/bits.hpp"
#include "fake_memory.hpp"
#include "pool/pool.hpp"
#include "support.hpp"

namespace rtpool::fuzz {
namespace {

using pool::Pool;

// A fallback allocator that refuses when told to, and counts what is alive.
struct FallbackDial {
  int until_refusal = -1;
  std::uint64_t alive = 0;
  bool refuses() noexcept {
    if (until_refusal < 0 || until_refusal-- > 0) return false;
    ++counts().faults;
    return true;
  }
};
FallbackDial g_fallback;

constexpr pool::Fallback k_fallback{
    [](std::size_t size) -> void* {
      if (size > (std::size_t{1} << 26) || g_fallback.refuses()) return nullptr;
      ++g_fallback.alive;
      return std::malloc(size);
    },
    [](std::size_t count, std::size_t size) -> void* {
      if (size > (std::size_t{1} << 26) || g_fallback.refuses()) return nullptr;
      ++g_fallback.alive;
      return std::calloc(count, size);
    },
    [](void*, std::size_t) -> void* { broken(__FILE__, __LINE__, "the pool never calls realloc of its fallback", ""); },
    [](void* block) {
      --g_fallback.alive;
      std::free(block);
    }};

struct Live {
  char* block;
  std::size_t size;  // as asked for
  std::uint8_t seed;
};

class Game {
 public:
  explicit Game(Input input) : input_(input) {}

  void play() {
    if (!make()) return;
    for_each_step(input_, k_most_steps, [this] {
      const unsigned code = input_.byte();
      const unsigned who = code >> 5 < 5 ? 0 : (code >> 5) - 4;
      as(who, [&] { act(code & 31, who); });
      verify();
    });
    end();
  }

 private:
  static constexpr unsigned k_most_steps = 200;
  static constexpr std::size_t k_most_blocks = 300;
  static constexpr unsigned k_actors = 4;  // the first is the thread that runs the fuzzer

  template <class Task>
  void as(unsigned who, Task&& task) {
    if (who == 0) return task();
    if (!actors_[who]) actors_[who] = std::make_unique<Actor>();
    actors_[who]->act(task);
  }

  bool make() {
    const unsigned shape = input_.byte();
    const unsigned flags = input_.byte();
    pool::Options options;
    constexpr std::size_t k_limits[] = {pool::k_no_limit, std::size_t{1} << 20, std::size_t{3} << 20, std::size_t{9} << 20};
    options.limit = k_limits[shape % 4];
    options.size = shape / 4 % 4 * (std::size_t{300} << 10);
    options.when_full = static_cast<pool::WhenFull>(shape / 16 % 3);
    options.huge_pages = static_cast<pool::HugePages>(shape / 64 % 3);
    options.prefault = (flags & 1) != 0;
    options.lock = (flags & 2) != 0;
    options.zero_on_free = (flags & 4) != 0;
    options.strict = (flags & 8) != 0;
    memory_.barrier = (flags & 16) == 0;
    memory_.physical = std::size_t{16} << 20;
    if ((flags & 32) != 0) refuse_call();
    g_fallback = FallbackDial{};
    zero_on_free_ = options.zero_on_free;
    const pool::CreateResult made = Pool::create(options, memory_, &k_fallback);
    pool_ = made.pool;
    FUZZ_EXPECT(pool_ != nullptr || made.error != 0);
    if (pool_ != nullptr) {
      limit_ = pool_->effective().limit;
      verify();
    }
    counts().faults += static_cast<std::uint64_t>(memory_.refusals);
    memory_.refusals = 0;
    return pool_ != nullptr;
  }

  void act(unsigned code, unsigned who) {
    switch (code) {
      case 0:
      case 1:
      case 2:
      case 3: allocate(false); break;
      case 4:
      case 5: allocate(true); break;
      case 6:
      case 7:
      case 8:
      case 9: free_one(input_.below(live_.size())); break;
      case 10: free_last(input_.byte() % 64); break;
      case 11:
      case 12: resize(); break;
      case 13: wrong_pointer(); break;
      case 14: repeat(); break;
      case 15: burst(); break;
      case 16: pool_->trim(); break;
      case 17: freeze(); break;
      case 18: pool_->unfreeze(); break;
      case 19: pool_->begin_learning(); break;
      case 20: end_learning(); break;
      case 21: prepare(); break;
      case 22: pool_->zero_ahead(input_.request(), input_.byte() % 8, std::size_t{input_.byte()} << 14); break;
      case 23: pool_->reset_peak(); break;
      case 24: refuse_call(); break;
      case 25: refuse_kind(); break;
      case 26: forgive(); break;
      case 27: g_fallback.until_refusal = input_.byte() % 8; break;
      case 28: ended_ = k_actors > 1 ? 1 + input_.byte() % (k_actors - 1) : 0; break;
      case 29: misses(); break;
      case 30: empty_out(); break;
      default:
        if (who == 0 && input_.byte() >= 250 && forks_ == 0) fork_child();
    }
  }

  void allocate(bool zeroed) {
    if (live_.size() >= k_most_blocks) return;
    take(input_.request(), zeroed);
  }

  bool take(std::size_t size, bool zeroed) {
    const int calls_before = memory_.all_calls;
    void* const block = zeroed ? pool_->allocate_zeroed(size) : pool_->allocate(size);
    if (pool_->frozen() && memory_.all_calls != calls_before) broken(__FILE__, __LINE__, "a frozen pool makes no kernel call", "");
    if (block == nullptr) return false;
    if (size == 0) size = 1;
    FUZZ_EXPECT(!zeroed || all_zero(block, size));
    remember(block, size);
    return true;
  }

  void remember(void* block, std::size_t size) {
    const bool small = size <= 4032;
    const auto address = reinterpret_cast<std::uintptr_t>(block);
    auto* const bytes = static_cast<char*>(block);
    if (pool_->contains(block)) {
      FUZZ_EXPECT(address % (small ? 64 : 4096) == 0);
      FUZZ_EXPECT(pool_->usable_size(block) >= size);
      FUZZ_EXPECT(pool_->usable_size(block) == base::align_up(size, small ? 64 : 4096));
    } else {
      FUZZ_EXPECT(pool_->is_fallback_block(block));
    }
    for (const Live& other : live_) FUZZ_EXPECT(bytes + size <= other.block || other.block + other.size <= bytes);
    live_.push_back({bytes, size, ++seed_});
    fill(block, size, seed_);
  }

  void free_one(std::size_t index) {
    if (live_.empty()) return;
    std::swap(live_[index], live_.back());
    const Live gone = live_.back();
    live_.pop_back();
    FUZZ_EXPECT(filled(gone.block, gone.size, gone.seed));
    const int calls_before = memory_.all_calls;
    const bool own = pool_->contains(gone.block);
    pool_->release(gone.block);
    FUZZ_EXPECT(memory_.all_calls == calls_before);
    if (zero_on_free_ && own) FUZZ_EXPECT(all_zero(gone.block, gone.size));
    freed_.push_back(gone.block);
    if (freed_.size() > 64) freed_.erase(freed_.begin());
  }

  void free_last(std::size_t blocks) {
    while (blocks-- != 0 && !live_.empty()) free_one(live_.size() - 1);
  }

  void empty_out() {
    while (!live_.empty()) free_one(live_.size() / 2);
  }

  void resize() {
    const std::size_t size = input_.request();
    if (live_.empty()) return;
    const std::size_t index = input_.below(live_.size());
    const Live before = live_[index];
    FUZZ_EXPECT(filled(before.block, before.size, before.seed));
    void* const block = pool_->resize(before.block, size);
    if (block == nullptr) {
      FUZZ_EXPECT(filled(before.block, before.size, before.seed));
      return;
    }
    const std::size_t now = size == 0 ? 1 : size;
    const std::size_t kept = std::min(before.size, now);
    // `fill` and `filled` lay their pattern by the size: compare with a block of the smaller size.
    if (kept == before.size) FUZZ_EXPECT(filled(block, kept, before.seed));
    if (kept != before.size && kept <= 2048 && before.size <= 2048) FUZZ_EXPECT(filled(block, kept, before.seed));
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(index));
    if (block != before.block) freed_.push_back(before.block);
    remember(block, now);
  }

  bool is_live(const void* pointer) const {
    return std::any_of(live_.begin(), live_.end(), [&](const Live& one) { return one.block == pointer; });
  }

  void wrong_pointer() {
    const unsigned kind = input_.byte();
    char* pointer = nullptr;
    static char foreign[256];
    switch (kind % 6) {
      case 0:
        if (!freed_.empty()) pointer = freed_[input_.below(freed_.size())];
        break;
      case 1:
        if (!live_.empty()) {
          const Live& one = live_[input_.below(live_.size())];
          pointer = one.block + 1 + input_.word() % one.size;
        }
        break;
      case 2:
        if (!live_.empty()) {
          const Live& one = live_[input_.below(live_.size())];
          pointer = one.block + (1 + std::size_t{input_.byte()} % 64) * (kind < 128 ? 64 : 4096);
        }
        break;
      case 3: pointer = foreign + input_.byte() % 256; break;
      case 4: pointer = static_cast<char*>(pool_->arena_begin()) + std::size_t{input_.double_word()}; break;
      default: pointer = reinterpret_cast<char*>(input_.quad_word());
    }
    if (pointer == nullptr || is_live(pointer)) return;
    ++misuses_;
    ++counts().misuses;
    if (kind < 200) {
      pool_->release(pointer);
    } else {
      FUZZ_EXPECT(pool_->resize(pointer, input_.request()) == nullptr);
    }
    FUZZ_EXPECT(pool_->usable_size(pointer) == 0);
  }

  // A loop that asks for the same sizes again and again.
  void repeat() {
    std::size_t sizes[3] = {input_.request(), input_.request(), input_.request()};
    const unsigned rounds = input_.byte() % 16;
    const unsigned zeroed = input_.byte();
    for (unsigned round = 0; round < rounds; ++round) {
      std::size_t got = 0;
      for (unsigned i = 0; i < 3; ++i) {
        if (live_.size() < k_most_blocks && take(sizes[i], (zeroed >> i & 1) != 0)) ++got;
      }
      for (; got != 0; --got) free_one((zeroed & 8) != 0 ? live_.size() - 1 : live_.size() - got);
    }
  }

  // Many blocks of one size.
  void burst() {
    const std::size_t size = 1 + input_.word() % 9000;
    unsigned blocks = input_.byte();
    while (blocks-- != 0 && live_.size() < k_most_blocks && take(size, false)) {
    }
  }

  void freeze() { pool_->freeze(input_.byte() % 2 == 0 ? pool::OnMiss::raise : pool::OnMiss::fallback); }

  void end_learning() {
    std::vector<pool::PlanEntry> plan(4096);
    const bool was = pool_->learning();
    const std::size_t count = pool_->end_learning(plan.data(), plan.size());
    FUZZ_EXPECT(was || count == 0);
    FUZZ_EXPECT(count <= plan.size() && !pool_->learning());
    plan.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      FUZZ_EXPECT(plan[i].most_alive <= plan[i].allocations && plan[i].zeroed <= plan[i].allocations);
      FUZZ_EXPECT(plan[i].requested <= plan[i].size);
      FUZZ_EXPECT(i == 0 || plan[i - 1].size < plan[i].size);
    }
    if (input_.byte() % 2 == 0) FUZZ_EXPECT(pool_->prepare(plan.data(), count) <= count);
  }

  void prepare() {
    pool::PlanEntry plan[3];
    const std::size_t count = input_.byte() % 4;
    for (std::size_t i = 0; i < count; ++i) {
      plan[i].size = input_.request();
      plan[i].most_alive = input_.byte() % 32;
      if (input_.byte() == 255) plan[i].most_alive = input_.quad_word();
      if (plan[i].most_alive > (1U << 20) && plan[i].most_alive <= (std::uint64_t{1} << 33)) plan[i].most_alive >>= 14;
    }
    FUZZ_EXPECT(pool_->prepare(plan, count) <= count);
  }

  void misses() {
    pool::MissEntry entries[64];
    const std::size_t count = pool_->misses_by_size(entries, 64);
    for (std::size_t i = 0; i < std::min<std::size_t>(count, 64); ++i) FUZZ_EXPECT(entries[i].count != 0);
  }

  void refuse_call() { memory_.fail_any_at = memory_.all_calls + input_.byte() % 8; }
  void refuse_kind() {
    test::FakeMemory::Dial& dial = memory_.dials[input_.byte() % test::FakeMemory::k_kinds];
    dial.fail_from = dial.calls + input_.byte() % 4;
    dial.fail_count = 1 + input_.byte() % 4;
  }
  void forgive() {
    memory_.fail_any_at = -1;
    for (test::FakeMemory::Dial& dial : memory_.dials) dial.fail_from = -1;
  }

  // The child sees what the parent had, can free and allocate, and its pool is whole.
  void fork_child() {
    ++forks_;
    const pid_t child = ::fork();
    FUZZ_EXPECT(child >= 0);
    if (child == 0) {
      verify();
      for (const Live& one : live_) FUZZ_EXPECT(filled(one.block, one.size, one.seed));
      while (live_.size() > 4) free_one(live_.size() / 3);
      for (unsigned i = 0; i < 4; ++i) take(100 + i * 3000, i % 2 == 0);
      verify();
      pool_->trim();
      empty_out();
      verify();
      ::_exit(0);
    }
    int status = 0;
    FUZZ_EXPECT(::waitpid(child, &status, 0) == child);
    FUZZ_EXPECT_SAYING(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in a forked child");
  }

  void verify() {
    if (ended_ != 0) actors_[ended_].reset();
    ended_ = 0;
    counts().faults += static_cast<std::uint64_t>(memory_.refusals);
    memory_.refusals = 0;
    const pool::CheckResult check = pool_->check();
    if (!check.ok) {
      broken(__FILE__, __LINE__, check.invariant, check.text);
    }
    std::uint64_t own = 0;
    std::uint64_t requested = 0;
    std::uint64_t granted = 0;
    for (const Live& one : live_) {
      if (!pool_->contains(one.block)) continue;
      ++own;
      requested += one.size;
      granted += pool_->usable_size(one.block);
    }
    const pool::Stats stats = pool_->stats();
    FUZZ_EXPECT(stats.current_count == own);
    FUZZ_EXPECT(stats.current_bytes == granted);
    FUZZ_EXPECT(stats.requested_bytes == requested);
    FUZZ_EXPECT(stats.fallback_count == live_.size() - own && stats.fallback_count == g_fallback.alive);
    FUZZ_EXPECT(stats.current_bytes <= stats.peak_bytes && stats.current_count <= stats.peak_count);
    FUZZ_EXPECT(stats.current_bytes <= stats.capacity_bytes && stats.capacity_bytes <= limit_);
    FUZZ_EXPECT(stats.largest_free_bytes <= stats.capacity_bytes - stats.current_bytes);
    FUZZ_EXPECT(stats.hits + stats.misses == stats.total_count + stats.failures + stats.fallbacks);
    FUZZ_EXPECT(stats.misuses == misuses_);
    FUZZ_EXPECT(pool_->live_blocks() == live_.size());
  }

  void end() {
    pool_->unfreeze();
    forgive();
    for (auto& actor : actors_) actor.reset();
    empty_out();
    verify();
    // All memory is free: with idle blocks given back, the largest request that fits the limit is served.
    if (pool_->learning()) end_learning();
    const std::size_t capacity = pool_->stats().capacity_bytes;
    pool_->trim();
    verify();
    if (capacity >= 8192) {
      FUZZ_EXPECT(take(capacity / 2, true));
      empty_out();
    }
    const auto* const arena = static_cast<const char*>(pool_->arena_begin());
    FUZZ_EXPECT(Pool::find(arena) == pool_);
    pool_->drop_reference();
    FUZZ_EXPECT(Pool::find(arena) == nullptr);
    FUZZ_EXPECT(g_fallback.alive == 0);
  }

  Input input_;
  test::FakeMemory memory_;
  Pool* pool_ = nullptr;
  std::size_t limit_ = 0;
  bool zero_on_free_ = false;
  unsigned ended_ = 0;
  unsigned forks_ = 0;
  std::uint8_t seed_ = 0;
  std::uint64_t misuses_ = 0;
  std::vector<Live> live_;
  std::vector<char*> freed_;
  std::unique_ptr<Actor> actors_[k_actors];
};

}  // namespace

void play(Input input) {
  const std::uint64_t reports_before = reports();
  const std::uint64_t misuses_before = counts().misuses;
  Game(input).play();
  FUZZ_EXPECT(reports() - reports_before == counts().misuses - misuses_before);
}

}  // namespace rtpool::fuzz
