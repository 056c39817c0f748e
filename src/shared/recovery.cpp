#include "shared/recovery.hpp"

#include <time.h>

#include <cstdlib>

#include "shared/step.hpp"

namespace rtpool::shared {

GranuleSet::GranuleSet(const Segment& segment) noexcept
    : bits_(static_cast<std::uint64_t*>(std::calloc(segment.geometry().granules / 64 + 1, 8))) {}

GranuleSet::~GranuleSet() { std::free(bits_); }

bool GranuleSet::has_any(std::uint32_t first, std::uint32_t count) const noexcept {
  for (std::uint32_t i = 0; i < count; ++i) {
    if (has(first + i)) return true;
  }
  return false;
}

Coverage::Coverage(Segment& segment, const Records& records, By by) noexcept
    : GranuleSet(segment), shift_(segment.geometry().granule_shift) {
  if (!ok()) return;
  for (std::uint32_t index = 0; index < segment.geometry().records; ++index) {
    const RecordState state = StateWord::state(segment.record(index).state.load());
    if (state != RecordState::alive && state != RecordState::closing && state != RecordState::setup) continue;
    BlockRange range;
    if (!records.range_of(index, &range)) continue;
    const auto first = static_cast<std::uint32_t>(range.offset >> shift_);
    const auto last = static_cast<std::uint32_t>((range.offset + range.bytes - 1) >> shift_);
    if (by == By::inherited && GranuleWord::tenancy(segment.granule(first).load()) == records.owner(index)) continue;
    for (std::uint32_t g = first; g <= last; ++g) add(g);
  }
}

bool Coverage::covers(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  const auto first = static_cast<std::uint32_t>(offset >> shift_);
  return has_any(first, static_cast<std::uint32_t>((offset + bytes - 1) >> shift_) - first + 1);
}

bool Recovery::lock(Tenancy self) noexcept {
  Word& word = segment_->header().recovery;
  std::uint64_t holder = word.load();
  if (holder != 0 && (Tenancy::of(holder) == self || processes_->working(Tenancy::of(holder)))) return false;
  if (!word.compare_exchange_strong(holder, self.packed())) return false;
  step(Step::recovery_locked);
  // Stealing and looking are done under this lock: what is under way now is that of a dead holder.
  granules_->finish_for_the_dead();
  return true;
}

void Recovery::unlock(Tenancy self) noexcept {
  std::uint64_t holder = self.packed();
  (void)segment_->header().recovery.compare_exchange_strong(holder, 0);
}

void Recovery::mark_dead() noexcept {
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    ProcessSlot& entry = segment_->process(slot);
    std::uint64_t life = entry.life.load();
    if (LifeWord::state(life) == Life::free || LifeWord::state(life) == Life::reaping) continue;
    if (processes_->slot_alive(slot, life)) continue;
    const std::uint64_t gone = LifeWord::make(Life::reaping, LifeWord::pid(life), LifeWord::generation(life));
    (void)entry.life.compare_exchange_strong(life, gone);
  }
}

// Whether somebody who still lives inherited from this slot, at any remove.
bool Recovery::kept(std::uint32_t slot) const noexcept {
  const Tenancy wanted{slot, LifeWord::generation(segment_->process(slot).life.load())};
  for (std::uint32_t child = 0; child < k_processes; ++child) {
    const Life state = LifeWord::state(segment_->process(child).life.load());
    if (state == Life::free || state == Life::reaping) continue;
    Tenancy ancestor = Tenancy::of(segment_->process(child).parent.load());
    for (unsigned generations = 0; ancestor && generations < k_processes; ++generations) {
      if (ancestor == wanted) return true;
      if (ancestor.slot >= k_processes) break;
      const ProcessSlot& entry = segment_->process(ancestor.slot);
      if (LifeWord::generation(entry.life.load()) != ancestor.generation) break;
      ancestor = Tenancy::of(entry.parent.load());
    }
  }
  return false;
}

void Recovery::clear_records(const bool* gone) noexcept {
  std::uint64_t bits[k_bit_words] = {};
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    if (gone[slot]) bits[slot / 64] |= std::uint64_t{1} << slot % 64;
  }
  for (std::uint32_t index = 0; index < segment_->geometry().records; ++index) {
    Record& record = segment_->record(index);
    for (unsigned i = 0; i < k_bit_words; ++i) {
      if ((record.bits[i].load(std::memory_order_relaxed) & bits[i]) != 0) record.bits[i].fetch_and(~bits[i]);
    }
    step(Step::recovery_bits);
    std::uint64_t state = record.state.load();
    const std::uint64_t freed = StateWord::make(RecordState::free, 0, StateWord::generation(state));
    if (StateWord::state(state) == RecordState::setup) {
      const std::uint32_t maker = StateWord::version(state);
      if (maker >= k_processes || gone[maker]) (void)record.state.compare_exchange_strong(state, freed);
      continue;
    }
    records_->try_close(index);
    state = record.state.load();
    if (StateWord::state(state) != RecordState::released) continue;
    const Tenancy owner = Tenancy::of(record.owner.load());
    if (processes_->current(owner) || (owner.slot < k_processes && !gone[owner.slot] &&
        LifeWord::generation(segment_->process(owner.slot).life.load()) == owner.generation)) continue;
    if (record.state.compare_exchange_strong(state, StateWord::make(RecordState::free, 0, StateWord::generation(state)))) {
      segment_->header().recovered_blocks.fetch_add(1);
    }
  }
}

// Granules of tenancies that are over, and lent runs of others, that no living record covers.
void Recovery::free_granules(Tenancy self) noexcept {
  const std::uint32_t total = segment_->geometry().granules;
  auto* const words = static_cast<std::uint64_t*>(std::malloc(total * sizeof(std::uint64_t)));
  if (words == nullptr) return;
  (void)granules_->mark_lent(self);
  const auto over = [this](Tenancy t) {
    if (t.slot >= k_processes) return true;
    const std::uint64_t life = segment_->process(t.slot).life.load();
    if (LifeWord::generation(life) != t.generation) return true;
    return LifeWord::state(life) == Life::free || (LifeWord::state(life) == Life::reaping && !kept(t.slot));
  };
  Tenancy asked;
  bool answer = false;
  for (std::uint32_t g = 0; g < total; ++g) {
    const std::uint64_t word = segment_->granule(g).load();
    words[g] = 0;
    if (word == 0) continue;
    const Tenancy tenancy = GranuleWord::tenancy(word);
    if (tenancy != asked) {
      asked = tenancy;
      answer = over(tenancy);
    }
    if (!answer) continue;
    words[g] = word;
  }
  step(Step::recovery_granules);
  // The words first, the records after: a dead process makes no new records, and nobody makes one in a lent run, so what is
  // uncovered now stays so.
  const Coverage coverage(*segment_, *records_, Coverage::By::all);
  for (std::uint32_t g = 0; coverage.ok() && g < total; ++g) {
    if (words[g] == 0 || coverage.has(g)) continue;
    (void)segment_->granule(g).compare_exchange_strong(words[g], 0);
    step(Step::recovery_freed);
  }
  std::free(words);
  take_lent_runs(self, coverage);
}

// Of the runs that are marked: those that no record covers. What waits for its owner there no longer does, before another
// process has the run (SH-7).
void Recovery::take_lent_runs(Tenancy self, const Coverage& coverage) noexcept {
  struct Found {
    const Coverage* coverage;
    GranuleSet nobodys;
  } found{&coverage, GranuleSet(*segment_)};
  const bool known = coverage.ok() && found.nobodys.ok();
  const auto look = [](void* context, std::uint32_t first, std::uint32_t count) {
    auto* const of = static_cast<Found*>(context);
    if (of->coverage->has_any(first, count)) return;
    for (std::uint32_t i = 0; i < count; ++i) of->nobodys.add(first + i);
  };
  if (known) granules_->for_each_looked_at(look, &found);
  for (std::uint32_t index = 0; known && index < segment_->geometry().records; ++index) {
    Record& record = segment_->record(index);
    std::uint64_t state = record.state.load();
    BlockRange range;
    if (StateWord::state(state) != RecordState::released || !records_->range_of(index, &range)) continue;
    if (!found.nobodys.has(static_cast<std::uint32_t>(range.offset >> segment_->geometry().granule_shift))) continue;
    (void)record.state.compare_exchange_strong(state, StateWord::make(RecordState::free, 0, StateWord::generation(state)));
    step(Step::waiting_freed);
  }
  const auto covered = [](const void* context, std::uint32_t first, std::uint32_t) {
    return context == nullptr || !static_cast<const Found*>(context)->nobodys.has(first);
  };
  (void)granules_->settle_lent(self, covered, known ? &found : nullptr);
}

bool Recovery::steal_idle(Tenancy self) noexcept {
  if (!lock(self)) return false;
  (void)granules_->steal_all_idle(self);
  unlock(self);
  return true;
}

bool Recovery::borrow(Tenancy self, std::uint64_t least, std::uint64_t most, BlockRef* ref, BlockRange* range) noexcept {
  if (!lock(self)) return false;
  const bool borrowed = records_->borrow(self, least, most, ref, range);
  unlock(self);
  return borrowed;
}

void Recovery::wait_for_another() noexcept {
  step(Step::recovery_refused);
  const timespec pause{0, 1'000'000};
  ::nanosleep(&pause, nullptr);
}

bool Recovery::run(Tenancy self, bool leaving) noexcept {
  if (!lock(self)) return false;
  if (leaving) processes_->mark_gone(self);
  mark_dead();
  step(Step::recovery_marked);
  bool gone[k_processes] = {};
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    gone[slot] = LifeWord::state(segment_->process(slot).life.load()) == Life::reaping && !kept(slot);
  }
  clear_records(gone);
  step(Step::recovery_records);
  free_granules(self);
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    if (!gone[slot]) continue;
    ProcessSlot& entry = segment_->process(slot);
    std::uint64_t life = entry.life.load();
    entry.parent.store(0);
    entry.current_bytes.store(0);
    entry.current_count.store(0);
    entry.requested_bytes.store(0);
    if (entry.life.compare_exchange_strong(life, LifeWord::make(Life::free, 0, LifeWord::generation(life)))) {
      segment_->header().recovered_processes.fetch_add(1);
    }
  }
  unlock(self);
  return true;
}

}  // namespace rtpool::shared
