#include "replay/replayer.hpp"

#include <cerrno>
#include <new>

#include "base/bits.hpp"
#include "base/relax.hpp"
#include "os/helper_thread.hpp"
#include "os/process_sample.hpp"

namespace rtpool::replay {
namespace {

constexpr std::uint64_t k_operation_mask = (std::uint64_t{1} << k_operation_bits) - 1;

bool fits(const Script& script) noexcept {
  if (script.threads == 0 || script.threads > k_most_threads || script.count > UINT32_MAX) return false;
  if (script.begins[0] != 0 || script.begins[script.threads] != script.count) return false;
  for (std::size_t thread = 0; thread < script.threads; ++thread) {
    const std::uint64_t begin = script.begins[thread];
    const std::uint64_t end = script.begins[thread + 1];
    if (begin > end || end > script.count) return false;
    for (std::uint64_t row = begin; row < end; ++row) {
      const std::uint64_t operation = script.what[row] & k_operation_mask;
      if (operation > static_cast<std::uint64_t>(Operation::resize_to) || script.slot[row] >= script.slots) return false;
      if (row > begin && script.order[row] <= script.order[row - 1]) return false;
    }
  }
  return true;
}

}  // namespace

int Replayer::open(const Script& script, os::Memory& memory) noexcept {
  close();
  if (!fits(script)) return EINVAL;
  script_ = script;
  memory_ = &memory;
  page_ = memory.page_size();
  const std::size_t slots = base::align_up(script.slots * sizeof(Slot), alignof(Worker));
  bytes_ = base::align_up(slots + script.threads * sizeof(Worker), page_);
  void* room = nullptr;
  if (const int error = memory.reserve(bytes_, page_, &room); error != 0) return error;
  int error = memory.commit(room, bytes_);
  // Where the kernel cannot, the constructors below touch every page.
  if (error == 0) (void)memory.prefault(room, bytes_);
  if (error != 0) {
    (void)memory.release(room, bytes_);
    return error;
  }
  slots_ = static_cast<Slot*>(room);
  for (std::uint32_t i = 0; i < script.slots; ++i) new (slots_ + i) Slot;
  workers_ = reinterpret_cast<Worker*>(static_cast<char*>(room) + slots);
  for (std::size_t i = 0; i < script.threads; ++i) {
    Worker& worker = *new (workers_ + i) Worker;
    worker.replayer = this;
    worker.number = i;
  }
  over_.store(false, std::memory_order_relaxed);
  pass_.store(0, std::memory_order_relaxed);
  for (started_ = 1; started_ < script.threads; ++started_) {
    if (error = workers_[started_].thread.start("replay", work, workers_ + started_); error != 0) {
      close();
      return error;
    }
  }
  return 0;
}

void Replayer::close() noexcept {
  if (slots_ == nullptr) return;
  over_.store(true);
  wake();
  for (std::size_t i = 1; i < started_; ++i) workers_[i].thread.join();
  (void)memory_->release(slots_, bytes_);
  slots_ = nullptr;
  workers_ = nullptr;
}

void Replayer::pass(Target& target, bool write, Pass* out) noexcept {
  target_ = &target;
  write_ = write && target.is_memory();
  for (std::uint32_t i = 0; i < script_.slots; ++i) slots_[i].turn.store(0, std::memory_order_relaxed);
  for (std::size_t i = 0; i < script_.threads; ++i) {
    const bool nothing = script_.begins[i] == script_.begins[i + 1];
    workers_[i].failures = 0;
    workers_[i].next.store(nothing ? k_done : script_.order[script_.begins[i]]);
  }
  running_.store(static_cast<std::uint32_t>(script_.threads));
  const os::ProcessSample before = os::sample_process();
  const os::Nanoseconds begun = os::clock().now();
  pass_.fetch_add(1);
  wake();
  run(workers_[0]);
  wait_until([this] { return running_.load() == 0; });
  out->took = os::clock().now() - begun;
  const os::ProcessSample after = os::sample_process();
  out->minor_faults = after.minor_faults - before.minor_faults;
  out->major_faults = after.major_faults - before.major_faults;
  out->resident_bytes = after.resident_bytes;
  out->failures = 0;
  for (std::size_t i = 0; i < script_.threads; ++i) out->failures += workers_[i].failures;
  release_rest();
  out->kept_bytes = os::sample_process().resident_bytes;
}

void Replayer::work(void* argument) noexcept {
  Worker& worker = *static_cast<Worker*>(argument);
  Replayer& self = *worker.replayer;
  for (std::uint32_t done = 0;; ++done) {
    self.wait_until([&] { return self.over_.load() || self.pass_.load() != done; });
    if (self.over_.load()) return;
    self.run(worker);
  }
}

void Replayer::run(Worker& worker) noexcept {
  const std::uint64_t begin = script_.begins[worker.number];
  const std::uint64_t end = script_.begins[worker.number + 1];
  std::uint64_t limit = 0;
  std::uint64_t published = 0;
  void* carried = nullptr;
  for (std::uint64_t row = begin; row < end; ++row) {
    if (script_.threads != 1) {
      const std::uint64_t order = script_.order[row];
      if (order - published >= k_window / 8 || (row - begin) % k_publish_every == 0) {
        publish(worker, order);
        published = order;
      }
      if (order > limit && (limit = allowed(worker)) < order) {
        publish(worker, order);
        wait_until([&] { return (limit = allowed(worker)) >= order; });
      }
      const std::atomic<std::uint32_t>& turn = slots_[script_.slot[row]].turn;
      if (turn.load(std::memory_order_acquire) != script_.turn[row]) {
        publish(worker, order);
        // The others' `next` is read first: with it comes what they did before (see publish).
        wait_until([&] { return allowed(worker) != 0 && turn.load() == script_.turn[row]; });
      }
    }
    if (!do_operation(row, &carried)) ++worker.failures;
  }
  if (carried != nullptr) target_->release(carried);
  publish(worker, k_done);
  running_.fetch_sub(1);
  wake();
}

bool Replayer::do_operation(std::size_t row, void** carried) noexcept {
  const std::uint64_t what = script_.what[row];
  const std::size_t size = what >> k_operation_bits;
  Slot& slot = slots_[script_.slot[row]];
  bool served = true;
  switch (static_cast<Operation>(what & k_operation_mask)) {
    case Operation::allocate:
      slot.block = target_->allocate(size);
      break;
    case Operation::allocate_zeroed:
      slot.block = target_->allocate_zeroed(size);
      break;
    case Operation::release:
      if (slot.block != nullptr) target_->release(slot.block);
      slot.block = nullptr;
      slot.turn.store(script_.turn[row] + 1, std::memory_order_release);
      return true;
    case Operation::resize_from:
      if (*carried != nullptr) target_->release(*carried);
      *carried = slot.block;
      slot.block = nullptr;
      slot.turn.store(script_.turn[row] + 1, std::memory_order_release);
      return true;
    case Operation::resize_to:
      slot.block = target_->resize(*carried, size);
      if (slot.block != nullptr) *carried = nullptr;
      break;
  }
  if (slot.block == nullptr) {
    served = false;
  } else if (write_) {
    write_pages(slot.block, size);
  }
  slot.turn.store(script_.turn[row] + 1, std::memory_order_release);
  return served;
}

void Replayer::write_pages(void* block, std::size_t size) const noexcept {
  auto* const bytes = static_cast<volatile char*>(block);
  const std::size_t first = page_ - (reinterpret_cast<std::uintptr_t>(block) & (page_ - 1));
  if (size != 0) bytes[0] = 1;
  for (std::size_t at = first; at < size; at += page_) bytes[at] = 1;
}

// Whoever reads this `next` also sees every slot as the worker has left it. Sequentially consistent, as is what sleepers do: one
// of both sees the other.
void Replayer::publish(Worker& worker, std::uint64_t next) noexcept {
  worker.next.store(next);
  if (sleepers_.load() != 0) wake();
}

std::uint64_t Replayer::allowed(const Worker& worker) const noexcept {
  std::uint64_t least = k_done - k_window;
  for (std::size_t i = 0; i < script_.threads; ++i) {
    if (i == worker.number) continue;
    const std::uint64_t next = workers_[i].next.load();
    if (next < least) least = next;
  }
  return least + k_window;
}

template <class Condition>
void Replayer::wait_until(Condition&& condition) noexcept {
  for (unsigned i = 0; i < k_spins; ++i) {
    if (condition()) return;
    base::relax();
  }
  sleepers_.fetch_add(1);
  for (;;) {
    const std::uint32_t seen = epoch_.load();
    if (condition()) break;
    os::sleep_while(epoch_, seen, os::k_for_ever);
  }
  sleepers_.fetch_sub(1);
}

void Replayer::wake() noexcept {
  epoch_.fetch_add(1);
  if (sleepers_.load() != 0) os::wake_sleepers(epoch_);
}

void Replayer::release_rest() noexcept {
  for (std::uint32_t i = 0; i < script_.slots; ++i) {
    if (slots_[i].block == nullptr) continue;
    target_->release(slots_[i].block);
    slots_[i].block = nullptr;
  }
}

}  // namespace rtpool::replay
