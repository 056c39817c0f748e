#include "shared/processes.hpp"

#include <cerrno>

#include "shared/step.hpp"

namespace rtpool::shared {
namespace {

// A forked child fills its slot in before anything else it does; one that has not by then was killed before it ran, or
// there was no fork. The price of a mistake: the child says so on standard error and goes on without what it inherited.
constexpr std::uint64_t k_fork_patience_s = 10;

}  // namespace

int Processes::take(Life state, std::int32_t pid, Tenancy* out) noexcept {
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    ProcessSlot& entry = segment_->process(slot);
    std::uint64_t life = entry.life.load();
    if (LifeWord::state(life) != Life::free) continue;
    std::uint32_t generation = LifeWord::generation(life) + 1;
    if (generation == 0) generation = 1;
    if (!entry.life.compare_exchange_strong(life, LifeWord::make(state, pid, generation))) continue;
    step(Step::join_claimed);
    entry.parent.store(0);
    entry.returned.store(0);
    entry.current_bytes.store(0);
    entry.current_count.store(0);
    entry.requested_bytes.store(0);
    entry.since.store(segment_->os().seconds());
    *out = {slot, generation};
    return 0;
  }
  return ENOSPC;
}

void Processes::describe_self(ProcessSlot& slot) noexcept {
  os::ProcessIdentity identity;
  (void)segment_->os().identify(segment_->os().process_id(), &identity);
  slot.start.store(identity.start);
  slot.image.store(identity.image);
  slot.namespace_.store(identity.namespace_);
}

int Processes::join(Tenancy* out) noexcept {
  const std::int32_t pid = segment_->os().process_id();
  if (const int error = take(Life::joining, pid, out); error != 0) return error;
  ProcessSlot& entry = segment_->process(out->slot);
  describe_self(entry);
  step(Step::join_written);
  std::uint64_t expected = LifeWord::make(Life::joining, pid, out->generation);
  return entry.life.compare_exchange_strong(expected, LifeWord::make(Life::live, pid, out->generation)) ? 0 : EBADMSG;
}

int Processes::reserve_for_fork(Tenancy parent, Tenancy* out) noexcept {
  if (const int error = take(Life::forking, segment_->os().process_id(), out); error != 0) return error;
  segment_->process(out->slot).parent.store(parent.packed());
  step(Step::fork_reserved);
  return 0;
}

int Processes::adopt_fork(Tenancy child) noexcept {
  ProcessSlot& entry = segment_->process(child.slot);
  std::uint64_t life = entry.life.load();
  if (LifeWord::state(life) != Life::forking || LifeWord::generation(life) != child.generation) return ESTALE;
  describe_self(entry);
  const std::uint64_t mine = LifeWord::make(Life::live, segment_->os().process_id(), child.generation);
  return entry.life.compare_exchange_strong(life, mine) ? 0 : ESTALE;
}

void Processes::mark_gone(Tenancy tenancy) noexcept {
  ProcessSlot& entry = segment_->process(tenancy.slot);
  std::uint64_t life = entry.life.load();
  while (LifeWord::generation(life) == tenancy.generation && LifeWord::state(life) != Life::free &&
         LifeWord::state(life) != Life::reaping) {
    if (entry.life.compare_exchange_weak(life, LifeWord::make(Life::reaping, LifeWord::pid(life), tenancy.generation))) return;
  }
}

bool Processes::current(Tenancy tenancy) const noexcept {
  if (!tenancy || tenancy.slot >= k_processes) return false;
  const std::uint64_t life = segment_->process(tenancy.slot).life.load();
  const Life state = LifeWord::state(life);
  return LifeWord::generation(life) == tenancy.generation && state != Life::free && state != Life::reaping;
}

bool Processes::working(Tenancy tenancy) const noexcept {
  if (!tenancy || tenancy.slot >= k_processes) return false;
  const std::uint64_t life = segment_->process(tenancy.slot).life.load();
  if (LifeWord::generation(life) != tenancy.generation) return false;
  if (LifeWord::state(life) != Life::reaping) return slot_alive(tenancy.slot, life);
  const ProcessSlot& entry = segment_->process(tenancy.slot);
  const os::ProcessIdentity identity{entry.start.load(), entry.image.load(), entry.namespace_.load()};
  return segment_->os().liveness(LifeWord::pid(life), identity) != os::Liveness::dead;
}

bool Processes::slot_alive(std::uint32_t slot, std::uint64_t life) const noexcept {
  ProcessSlot& entry = segment_->process(slot);
  os::ProcessIdentity identity;
  switch (LifeWord::state(life)) {
    case Life::free:
    case Life::reaping: return false;
    case Life::joining: break;
    case Life::forking: return segment_->os().seconds() - entry.since.load() < k_fork_patience_s;
    case Life::live:
      identity = {entry.start.load(), entry.image.load(), entry.namespace_.load()};
      break;
  }
  return segment_->os().liveness(LifeWord::pid(life), identity) != os::Liveness::dead;
}

bool Processes::alive(Tenancy tenancy) const noexcept {
  if (!tenancy || tenancy.slot >= k_processes) return false;
  const std::uint64_t life = segment_->process(tenancy.slot).life.load();
  return LifeWord::generation(life) == tenancy.generation && slot_alive(tenancy.slot, life);
}

bool Processes::has_child(Tenancy parent) const noexcept {
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    const ProcessSlot& entry = segment_->process(slot);
    if (LifeWord::state(entry.life.load()) != Life::free && entry.parent.load() == parent.packed()) return true;
  }
  return false;
}

unsigned Processes::count_alive() const noexcept {
  unsigned count = 0;
  for (std::uint32_t slot = 0; slot < k_processes; ++slot) {
    if (slot_alive(slot, segment_->process(slot).life.load())) ++count;
  }
  return count;
}

}  // namespace rtpool::shared
