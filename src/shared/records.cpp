#include "shared/records.hpp"

#include <cerrno>
#include <initializer_list>

#include "shared/step.hpp"

namespace rtpool::shared {
namespace {

constexpr unsigned k_most_turns = 1000;  // whatever others write meanwhile
constexpr unsigned k_most_borrows = 8;

Word& bit_word(Record& record, std::uint32_t slot) noexcept { return record.bits[slot / 64 % k_bit_words]; }
std::uint64_t bit_mask(std::uint32_t slot) noexcept { return std::uint64_t{1} << slot % 64; }

}  // namespace

int Records::create(Tenancy owner, const BlockRange& range, BlockRef* out) noexcept {
  for (const RecordState unused : {RecordState::free, RecordState::released}) {
    if (create_over(owner, range, unused, out)) return 0;
  }
  return ENOSPC;
}

bool Records::create_over(Tenancy owner, const BlockRange& range, RecordState unused, BlockRef* out) noexcept {
  const std::uint32_t total = segment_->geometry().records;
  for (std::uint32_t tried = 0; tried < total; ++tried) {
    const std::uint32_t index = next_free_;
    next_free_ = next_free_ + 1 < total ? next_free_ + 1 : 0;
    Record& record = segment_->record(index);
    std::uint64_t state = record.state.load();
    if (StateWord::state(state) != unused) continue;
    const std::uint32_t generation = StateWord::generation(state) + 1;
    // While it is in `setup` the version says whose setup it is.
    if (!record.state.compare_exchange_strong(state, StateWord::make(RecordState::setup, owner.slot, generation))) continue;
    step(Step::share_claimed);
    record.owner.store(owner.packed());
    record.offset.store(range.offset);
    record.bytes.store(range.bytes);
    for (Word& ticket : record.tickets) ticket.store(0);
    bit_word(record, owner.slot).fetch_or(bit_mask(owner.slot));
    step(Step::share_written);
    record.state.store(StateWord::make(RecordState::alive, 0, generation));
    step(Step::share_published);
    *out = {index, generation};
    return true;
  }
  return false;
}

bool Records::range_of(std::uint32_t index, BlockRange* out) const noexcept {
  const Record& record = segment_->record(index);
  out->offset = record.offset.load();
  out->bytes = record.bytes.load();
  const std::uint64_t size = segment_->geometry().data_bytes;
  return out->bytes != 0 && out->offset < size && out->bytes <= size - out->offset;
}

int Records::acquire(Tenancy holder, const BlockRef& ref, bool held_before, BlockRange* range) noexcept {
  if (ref.record >= segment_->geometry().records) return EBADMSG;
  Record& record = segment_->record(ref.record);
  if (StateWord::generation(record.state.load()) != ref.generation) return ESTALE;
  bit_word(record, holder.slot).fetch_or(bit_mask(holder.slot));
  step(Step::acquire_marked);
  int error = ESTALE;
  // Ends: each turn that finds a closing brings that closing to its end, and closings begin only when nobody holds.
  for (unsigned turn = 0; turn < k_most_turns; ++turn) {
    const std::uint64_t state = record.state.load();
    if (StateWord::generation(state) != ref.generation) break;
    if (StateWord::state(state) == RecordState::closing) {
      finish_closing(ref.record, state, Tenancy{});
      continue;
    }
    if (StateWord::state(state) == RecordState::alive) error = range_of(ref.record, range) ? 0 : EBADMSG;
    break;
  }
  step(Step::acquire_confirmed);
  if (error != 0 && !held_before) {
    // The bit may by now stand in a later block's record, which could have been closed but for it.
    bit_word(record, holder.slot).fetch_and(~bit_mask(holder.slot));
    try_close(ref.record);
  }
  return error;
}

bool Records::drop(Tenancy holder, const BlockRef& ref) noexcept {
  Record& record = segment_->record(ref.record);
  bit_word(record, holder.slot).fetch_and(~bit_mask(holder.slot));
  step(Step::drop_cleared);
  close_for(ref.record, holder);
  BlockRef taken;
  return take_released(holder, ref.record, &taken);
}

bool Records::unheld(const Record& record) const noexcept {
  std::uint64_t any = 0;
  for (const Word& word : record.bits) any |= word.load();
  for (const Word& word : record.tickets) any |= word.load();
  return any == 0;
}

bool Records::held_by_owner(std::uint32_t index) const noexcept {
  const Record& record = segment_->record(index);
  const Tenancy owner = Tenancy::of(record.owner.load());
  if (owner.slot >= k_processes || (record.bits[owner.slot / 64].load() & bit_mask(owner.slot)) == 0) return false;
  const std::uint64_t life = segment_->process(owner.slot).life.load();
  return LifeWord::generation(life) == owner.generation && LifeWord::state(life) != Life::free;
}

// `owner_in_wait` takes the block back itself if it is the owner; another owner finds it in its list.
void Records::close_for(std::uint32_t index, Tenancy owner_in_wait) noexcept {
  Record& record = segment_->record(index);
  std::uint64_t state = record.state.load();
  if (StateWord::state(state) == RecordState::alive) {
    if (!unheld(record)) return;
    const std::uint64_t closing =
        StateWord::make(RecordState::closing, StateWord::version(state) + 1, StateWord::generation(state));
    if (!record.state.compare_exchange_strong(state, closing)) return;  // somebody else looks after it
    step(Step::close_begun);
    state = closing;
  }
  if (StateWord::state(state) == RecordState::closing) finish_closing(index, state, owner_in_wait);
}

void Records::finish_closing(std::uint32_t index, std::uint64_t closing, Tenancy owner_in_wait) noexcept {
  Record& record = segment_->record(index);
  const bool free = unheld(record);
  step(Step::close_decided);
  const auto next = free ? RecordState::released : RecordState::alive;
  const Tenancy owner = Tenancy::of(record.owner.load());
  std::uint64_t expected = closing;
  const std::uint64_t decided = StateWord::make(next, StateWord::version(closing), StateWord::generation(closing));
  if (!record.state.compare_exchange_strong(expected, decided) || !free) return;
  step(Step::close_done);
  if (owner != owner_in_wait) hand_back(index, owner);
}

void Records::hand_back(std::uint32_t index, Tenancy owner) noexcept {
  if (!processes_->current(owner)) return;  // recovery frees it, together with the rest of that process
  Word& head = segment_->process(owner.slot).returned;
  std::uint64_t first = head.load();
  do {
    if (first == index + std::uint64_t{1}) return;  // it was borrowed and is there from before
    segment_->record(index).next.store(first);
  } while (!head.compare_exchange_weak(first, index + std::uint64_t{1}));
  step(Step::return_pushed);
}

bool Records::take_released(Tenancy owner, std::uint32_t index, BlockRef* out) noexcept {
  Record& record = segment_->record(index);
  std::uint64_t state = record.state.load();
  if (StateWord::state(state) != RecordState::released || Tenancy::of(record.owner.load()) != owner) return false;
  const std::uint32_t generation = StateWord::generation(state);
  if (!record.state.compare_exchange_strong(state, StateWord::make(RecordState::free, 0, generation))) return false;
  step(Step::return_taken);
  next_free_ = index;
  *out = {index, generation};
  return true;
}

bool Records::over(Tenancy owner, std::uint64_t offset, BlockRef* ref) noexcept {
  Record& record = segment_->record(ref->record);
  for (unsigned turn = 0; turn < k_most_turns; ++turn) {
    const std::uint64_t state = record.state.load();
    const std::uint32_t generation = StateWord::generation(state);
    const RecordState at = StateWord::state(state);
    if (at == RecordState::free) return true;
    if (generation != ref->generation) {
      if (at == RecordState::setup) return true;  // for a new block
      const bool borrowed = Tenancy::of(record.owner.load()) == owner && record.offset.load() == offset;
      if (StateWord::generation(record.state.load()) != generation) continue;
      if (!borrowed) return true;
      ref->generation = generation;
    }
    if (at != RecordState::released) return false;
    BlockRef taken;
    if (take_released(owner, ref->record, &taken)) return true;
  }
  return false;
}

// The block's memory is its owner's as long as that one lives and has its granules: it has not been taken from it, nor was
// it inherited by fork, where the record's owner is another than the granules'.
bool Records::can_be_borrowed(std::uint32_t index, std::uint64_t state, Tenancy holder, BlockRange* range) const noexcept {
  const Tenancy owner = this->owner(index);
  if (StateWord::state(state) != RecordState::released || owner == holder || owner.slot >= k_processes) return false;
  const std::uint64_t life = segment_->process(owner.slot).life.load();
  if (LifeWord::state(life) != Life::live || LifeWord::generation(life) != owner.generation) return false;
  if (!range_of(index, range)) return false;
  const auto first = static_cast<std::uint32_t>(range->offset >> segment_->geometry().granule_shift);
  return GranuleWord::tenancy(segment_->granule(first).load()) == owner;
}

// As `acquire`: the bit first, so that nobody closes what was just begun.
bool Records::begin_anew(std::uint32_t index, std::uint64_t state, Tenancy holder) noexcept {
  Record& record = segment_->record(index);
  bit_word(record, holder.slot).fetch_or(bit_mask(holder.slot));
  step(Step::borrow_marked);
  const std::uint64_t alive = StateWord::make(RecordState::alive, 0, StateWord::generation(state) + 1);
  if (record.state.compare_exchange_strong(state, alive)) {
    step(Step::borrow_taken);
    return true;
  }
  bit_word(record, holder.slot).fetch_and(~bit_mask(holder.slot));
  try_close(index);
  return false;
}

bool Records::borrow(Tenancy holder, std::uint64_t least, std::uint64_t most, BlockRef* ref, BlockRange* range) noexcept {
  for (unsigned turn = 0; turn < k_most_borrows; ++turn) {  // each but the last finds that an owner was quicker
    std::uint32_t found = k_none;
    std::uint64_t as_found = 0;
    range->bytes = most + 1;
    for (std::uint32_t index = 0; index < segment_->geometry().records && range->bytes != least; ++index) {
      const std::uint64_t state = segment_->record(index).state.load();
      BlockRange there;
      if (!can_be_borrowed(index, state, holder, &there) || there.bytes < least || there.bytes >= range->bytes) continue;
      found = index;
      as_found = state;
      *range = there;
    }
    if (found == k_none) return false;
    if (!begin_anew(found, as_found, holder)) continue;
    *ref = {found, StateWord::generation(as_found) + 1};
    return true;
  }
  return false;
}

void Records::drain_returned(Tenancy owner, void (*take)(void*, BlockRef), void* context) noexcept {
  Word& head = segment_->process(owner.slot).returned;
  if (head.load(std::memory_order_relaxed) == 0) return;
  std::uint64_t link = head.exchange(0);
  step(Step::return_drained);
  // The list only saves a search: whatever stands in it, it is cut at the number of records and each is looked at.
  for (std::uint32_t i = 0; link != 0 && i < segment_->geometry().records; ++i) {
    const std::uint64_t index = link - 1;
    if (index >= segment_->geometry().records) return;
    const std::uint64_t next = segment_->record(static_cast<std::uint32_t>(index)).next.load();
    link = next != link ? next : 0;
    BlockRef ref;
    if (take_released(owner, static_cast<std::uint32_t>(index), &ref)) take(context, ref);
  }
}

void Records::scan_returned(Tenancy owner, void (*take)(void*, BlockRef), void* context) noexcept {
  for (std::uint32_t index = 0; index < segment_->geometry().records; ++index) {
    BlockRef ref;
    if (take_released(owner, index, &ref)) take(context, ref);
  }
}

int Records::add_ticket(Tenancy sender, const BlockRef& ref) noexcept {
  Record& record = segment_->record(ref.record);
  const std::uint64_t now = segment_->age();
  for (unsigned pass = 0; pass < 2; ++pass) {
    for (unsigned i = 0; i + 1 < k_tickets; ++i) {
      std::uint64_t word = record.tickets[i].load();
      while (pass == 0 ? TicketWord::count(word) != 0 && TicketWord::of(word, sender) : word == 0) {
        const std::uint32_t count = TicketWord::count(word);
        if (count == 0xffff) return EOVERFLOW;
        if (record.tickets[i].compare_exchange_weak(word, TicketWord::make(count + 1, sender, now))) {
          step(Step::ticket_added);
          return 0;
        }
      }
    }
  }
  // More senders than words: the last word counts for all of them.
  Word& shared = record.tickets[k_tickets - 1];
  std::uint64_t word = shared.load();
  while (TicketWord::count(word) != 0xffff) {
    if (shared.compare_exchange_weak(word, TicketWord::make(TicketWord::count(word) + 1, Tenancy{}, now))) {
      step(Step::ticket_added);
      return 0;
    }
  }
  return EOVERFLOW;
}

void Records::take_ticket(Tenancy sender, const BlockRef& ref) noexcept {
  Record& record = segment_->record(ref.record);
  for (unsigned i = 0; i < k_tickets; ++i) {
    const bool last = i + 1 == k_tickets;
    std::uint64_t word = record.tickets[i].load();
    while (TicketWord::count(word) != 0 && TicketWord::of(word, last ? Tenancy{} : sender)) {
      const std::uint64_t less = TicketWord::count(word) == 1 ? 0 : word - 1;
      if (record.tickets[i].compare_exchange_weak(word, less)) {
        step(Step::ticket_taken);
        return;
      }
    }
  }
}

std::uint64_t Records::drop_tickets(std::uint32_t age, bool of_dead_only) noexcept {
  const std::uint32_t now = segment_->age();
  std::uint64_t dropped = 0;
  for (std::uint32_t index = 0; index < segment_->geometry().records; ++index) {
    Record& record = segment_->record(index);
    if (StateWord::state(record.state.load()) != RecordState::alive) continue;
    bool any = false;
    for (unsigned i = 0; i < k_tickets; ++i) {
      std::uint64_t word = record.tickets[i].load();
      if (word == 0 || ((now - TicketWord::time(word)) & 0xffffff) < age) continue;
      if (of_dead_only && i + 1 < k_tickets) {
        const std::uint32_t slot = TicketWord::slot(word);
        const std::uint64_t life = segment_->process(slot).life.load();
        const Tenancy sender{slot, LifeWord::generation(life)};
        if (TicketWord::of(word, sender) && processes_->alive(sender)) continue;
      } else if (of_dead_only) {
        continue;
      }
      const std::uint32_t count = TicketWord::count(word);
      if (record.tickets[i].compare_exchange_strong(word, 0)) {
        dropped += count;
        any = true;
      }
    }
    if (any) try_close(index);
  }
  return dropped;
}

std::uint32_t Records::count(RecordState wanted) const noexcept {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < segment_->geometry().records; ++i) {
    count += StateWord::state(segment_->record(i).state.load(std::memory_order_relaxed)) == wanted ? 1U : 0U;
  }
  return count;
}

Records::Sums Records::sums() const noexcept {
  Sums sums;
  for (std::uint32_t i = 0; i < segment_->geometry().records; ++i) {
    const Record& record = segment_->record(i);
    const std::uint64_t state = record.state.load();
    if (state == 0) break;  // none from here on has had a block
    if (StateWord::state(state) != RecordState::alive) continue;
    ++sums.alive;
    for (const Word& word : record.tickets) sums.tickets += TicketWord::count(word.load(std::memory_order_relaxed));
    BlockRange range;
    if (held_by_owner(i) || !range_of(i, &range)) continue;
    ++sums.left;
    sums.left_bytes += range.bytes;
  }
  return sums;
}

}  // namespace rtpool::shared
