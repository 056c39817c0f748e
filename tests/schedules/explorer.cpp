// The hardened longjmp takes a jump to another stack for an overrun.
#undef _FORTIFY_SOURCE

#include "explorer.hpp"

#define RTPOOL_EXPLORER_ITSELF
#include "scheduled.hpp"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace rtpool::schedules {
namespace {

constexpr std::size_t k_stack_bytes = std::size_t{512} << 10;
constexpr unsigned k_most_accesses = 200'000;  // of one schedule: more is a loop without an end
constexpr unsigned k_spins = 3;                // the same load so often, nothing written meanwhile: a loop that waits

struct Kept {
  void* address;
  std::uint64_t value;
  unsigned bytes;
};

// First in, first out. What it once took it keeps: a search empties millions of these.
class Queue {
 public:
  bool empty() const noexcept { return first_ == all_.size(); }
  const Kept& front() const noexcept { return all_[first_]; }
  void push(const Kept& kept) { all_.push_back(kept); }
  void pop() noexcept {
    if (++first_ == all_.size()) clear();
  }
  void clear() noexcept {
    all_.clear();
    first_ = 0;
  }
  // The youngest store to that address; null if there is none.
  const Kept* find(const void* address) const noexcept {
    for (std::size_t i = all_.size(); i-- > first_;) {
      if (all_[i].address == address) return &all_[i];
    }
    return nullptr;
  }

 private:
  std::vector<Kept> all_;
  std::size_t first_ = 0;
};

// What of a thread begins anew with each schedule.
struct Progress {
  bool done = false;
  const void* wants = nullptr;
  bool paused = false;
  std::uint64_t paused_at = 0;
  const void* last_load = nullptr;
  std::uint64_t last_load_at = 0;
  unsigned repeats = 0;
};

struct Thread : Progress {
  ucontext_t start;     // of its stack; from then on it jumps, which takes no system call
  jmp_buf registers;
  void* stack = nullptr;
  Queue kept;
};

struct Held {
  const void* lock;
  unsigned holder;
};

struct Choice {
  unsigned char taken;
  unsigned char count;
};

// The one exploration that is under way.
struct Exploration {
  const Scenario* scenario = nullptr;
  Limits limits;
  Outcome outcome;
  std::vector<Thread> threads;
  ucontext_t start;
  jmp_buf registers;  // outside of all threads
  unsigned current = k_outside;
  std::vector<Held> held;
  std::uint64_t epoch = 0;  // writes that others can see
  std::vector<Choice> path;
  std::size_t depth = 0;
  unsigned preemptions = 0;
  unsigned accesses = 0;
  std::vector<unsigned char> order;
};
Exploration* g_now = nullptr;

constexpr unsigned k_flush = 0x80;  // in a choice: the oldest kept store of that thread becomes visible

bool inside() noexcept { return g_now != nullptr && g_now->current != k_outside; }

void apply(const Kept& kept) noexcept {
  std::memcpy(kept.address, &kept.value, kept.bytes);
  ++g_now->epoch;
}

void switch_to(unsigned next) noexcept {
  Exploration& now = *g_now;
  const unsigned from = now.current;
  if (from == next) return;
  now.scenario->switched(from, next);
  now.current = next;
  jmp_buf& old = from == k_outside ? now.registers : now.threads[from].registers;
  jmp_buf& goal = next == k_outside ? now.registers : now.threads[next].registers;
  if (_setjmp(old) == 0) _longjmp(goal, 1);
}

void fail(const char* promise) noexcept {
  if (g_now->outcome.broken.empty()) {
    g_now->outcome.broken = promise;
    g_now->outcome.schedule = g_now->order;
  }
  if (inside()) switch_to(k_outside);
}

bool is_held_by_other(const void* which, unsigned self) noexcept {
  for (const Held& one : g_now->held) {
    if (one.lock == which) return one.holder != self;
  }
  return false;
}

bool can_go_on(unsigned index) noexcept {
  const Thread& thread = g_now->threads[index];
  if (thread.done || (thread.paused && thread.paused_at == g_now->epoch)) return false;
  return thread.wants == nullptr || !is_held_by_other(thread.wants, index);
}

unsigned next_choice(std::size_t count) noexcept {
  Exploration& now = *g_now;
  if (count == 1) return 0;
  ++now.outcome.points;
  if (now.depth == now.path.size()) now.path.push_back({0, static_cast<unsigned char>(count)});
  Choice& choice = now.path[now.depth++];
  if (choice.count != count) {
    std::fprintf(stderr, "the scenario does not repeat itself: %u choices became %zu\n", choice.count, count);
    std::abort();
  }
  return choice.taken;
}

// Lets a thread go on: the caller, if it can, or after one preemption another.
void choose() noexcept {
  Exploration& now = *g_now;
  if (++now.accesses > k_most_accesses) return fail("every schedule ends");
  for (;;) {
    unsigned candidates[64];
    unsigned count = 0;
    const unsigned self = now.current;
    const bool self_goes = can_go_on(self);
    if (self_goes) candidates[count++] = self;
    if (!self_goes || now.preemptions < now.limits.preemptions) {
      for (unsigned i = 0; i < now.threads.size(); ++i) {
        if (i != self && can_go_on(i)) candidates[count++] = i;
      }
    }
    for (unsigned i = 0; now.limits.store_buffers && i < now.threads.size(); ++i) {
      if (!now.threads[i].kept.empty()) candidates[count++] = k_flush | i;
    }
    if (count == 0) {
      for (const Thread& thread : now.threads) {
        if (!thread.done) return fail("some thread can always go on (deadlock)");
      }
      return switch_to(k_outside);
    }
    const unsigned picked = candidates[next_choice(count)];
    now.order.push_back(static_cast<unsigned char>(picked));
    if ((picked & k_flush) != 0) {
      Queue& kept = now.threads[picked & ~k_flush].kept;
      apply(kept.front());
      kept.pop();
      continue;
    }
    if (self_goes && picked != self) ++now.preemptions;
    now.threads[picked].paused = false;
    return switch_to(picked);
  }
}

// Runs its part of the scenario once in every schedule; where one is broken off there is no next.
void thread_main(unsigned index) {
  if (_setjmp(g_now->threads[index].registers) == 0) ::setcontext(&g_now->start);
  for (;;) {
    g_now->scenario->threads[index]();
    g_now->threads[index].done = true;
    choose();
  }
}

// Up to where its first schedule begins.
void start_thread(unsigned index) {
  Thread& thread = g_now->threads[index];
  thread.stack = ::mmap(nullptr, k_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ::getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = thread.stack;
  thread.start.uc_stack.ss_size = k_stack_bytes;
  thread.start.uc_link = nullptr;
  ::makecontext(&thread.start, reinterpret_cast<void (*)()>(thread_main), 1, index);
  ::swapcontext(&g_now->start, &thread.start);
}

void run_once() {
  Exploration& now = *g_now;
  now.depth = 0;
  now.preemptions = 0;
  now.accesses = 0;
  now.epoch = 0;
  now.order.clear();
  now.held.clear();
  now.scenario->begin();
  for (Thread& thread : now.threads) {
    static_cast<Progress&>(thread) = {};
    thread.kept.clear();
  }
  // Which thread begins is a choice as any other.
  const unsigned first = next_choice(now.threads.size());
  now.order.push_back(static_cast<unsigned char>(first));
  switch_to(first);
  flush_all_stores();
  if (now.outcome.broken.empty()) now.scenario->end();
  now.scenario->clean_up();
  ++now.outcome.schedules;
  if (now.accesses > now.outcome.longest) now.outcome.longest = now.accesses;
}

}  // namespace

Outcome explore(const Scenario& scenario, const Limits& limits) {
  Exploration now;
  now.scenario = &scenario;
  now.limits = limits;
  now.threads.resize(scenario.threads.size());
  g_now = &now;
  for (unsigned i = 0; i < now.threads.size(); ++i) start_thread(i);
  while (now.outcome.schedules < limits.most_schedules) {
    run_once();
    if (!now.outcome.broken.empty()) break;
    while (!now.path.empty() && now.path.back().taken + 1 == now.path.back().count) now.path.pop_back();
    if (now.path.empty()) {
      now.outcome.exhausted = true;
      break;
    }
    ++now.path.back().taken;
  }
  g_now = nullptr;
  for (Thread& thread : now.threads) ::munmap(thread.stack, k_stack_bytes);
  return now.outcome;
}

void expect(bool holds, const char* promise) {
  if (!holds) fail(promise);
}

// --- what the code under test calls -----------------------------------------------------------------------------------

void before_access(const void* address, bool writes) noexcept {
  if (!inside()) return;
  Thread& self = g_now->threads[g_now->current];
  if (!writes) {
    const bool again = self.last_load == address && self.last_load_at == g_now->epoch;
    self.repeats = again ? self.repeats + 1 : 0;
    if (self.repeats >= k_spins) return;
  }
  choose();
  self.last_load = writes ? nullptr : address;
  if (writes) ++g_now->epoch;
  self.last_load_at = g_now->epoch;
}

bool keep_store(void* address, std::uint64_t value, unsigned bytes) noexcept {
  if (!inside() || !g_now->limits.store_buffers) return false;
  g_now->threads[g_now->current].kept.push({address, value, bytes});
  return true;
}

bool kept_value(const void* address, std::uint64_t* value) noexcept {
  if (!inside()) return false;
  const Kept* const kept = g_now->threads[g_now->current].kept.find(address);
  if (kept != nullptr) *value = kept->value;
  return kept != nullptr;
}

void flush_stores() noexcept {
  if (!inside()) return;
  Queue& kept = g_now->threads[g_now->current].kept;
  for (; !kept.empty(); kept.pop()) apply(kept.front());
}

void flush_all_stores() noexcept {
  if (g_now == nullptr) return;
  for (Thread& thread : g_now->threads) {
    for (; !thread.kept.empty(); thread.kept.pop()) apply(thread.kept.front());
  }
}

void pause() noexcept {
  if (!inside()) return;
  Thread& self = g_now->threads[g_now->current];
  self.paused = true;
  self.paused_at = g_now->epoch;
  choose();
}

unsigned current_thread() noexcept { return g_now == nullptr ? k_outside : g_now->current; }

void lock(const void* which) noexcept {
  if (g_now == nullptr) return;
  before_access(which, true);
  flush_stores();
  while (is_held_by_other(which, k_outside)) {
    if (!inside()) {
      fail("no lock is left locked");
      return;
    }
    Thread& self = g_now->threads[g_now->current];
    self.wants = which;
    choose();
    self.wants = nullptr;
  }
  g_now->held.push_back({which, g_now->current});
}

bool try_lock(const void* which) noexcept {
  if (g_now == nullptr) return true;
  before_access(which, true);
  flush_stores();
  for (const Held& one : g_now->held) {
    if (one.lock == which) return false;
  }
  g_now->held.push_back({which, g_now->current});
  return true;
}

void unlock(const void* which) noexcept {
  if (g_now == nullptr) return;
  before_access(which, true);
  flush_stores();
  for (std::size_t i = 0; i < g_now->held.size(); ++i) {
    if (g_now->held[i].lock != which) continue;
    if (g_now->held[i].holder != g_now->current) fail("a lock is unlocked by who locked it");
    g_now->held.erase(g_now->held.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
  fail("only locked locks are unlocked");
}

}  // namespace rtpool::schedules
