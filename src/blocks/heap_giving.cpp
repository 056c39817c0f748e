// How a heap gives memory back, and the walk of its invariants.
#include <atomic>
#include <initializer_list>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "blocks/heap_hit.hpp"

namespace rtpool::blocks {

using pages::k_no_page;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

// They depart; of many the last few are left waiting.
unsigned Heap::give_runs(unsigned bin, unsigned most) noexcept {
  unsigned given = 0;
  while (given < most && bin_heads_[bin] != k_no_page) {
    const PageIndex first = bin_heads_[bin];
    const PageDesc& desc = descs_[first];
    bin_heads_[bin] = desc.run.next.load(std::memory_order_relaxed);
    depart(first, (desc.run.use.slack & pages::k_slack_zero) != 0);
    if (departing_count_.get() >= k_departing_most) give_departing();
    ++given;
  }
  return given;
}

// Of the next bins under the clock hand.
unsigned Heap::decay_bins(unsigned most) noexcept {
  static_assert(k_decay_bins == 8 && k_bins % k_decay_bins == 0);
  bin_hand_ = (bin_hand_ + k_decay_bins) % k_bins;
  unsigned given = 0;
  for (unsigned filled = base::others_of_eight(&bin_heads_[bin_hand_], k_no_page); filled != 0; filled &= filled - 1) {
    const unsigned bin = bin_hand_ + base::lowest_bit(filled);
    if (const auto pops = static_cast<std::uint32_t>(bin_pops_[bin].get()); pops != bin_uses_[bin].seen) {
      bin_uses_[bin].seen = pops;
    } else {
      given += give_runs(bin, most - given);
    }
  }
  return given;
}

void Heap::decay() noexcept {
  if (!keeps_too_much() || ++decay_misses_ % k_decay_misses != 0) return;
  decay_bins(k_decay_runs);
  class_hand_ = (class_hand_ + 1) % k_classes;
  Magazine& magazine = magazines_[class_hand_];
  ClassState& cls = classes_[class_hand_];
  if (magazine.pops() == magazine.seen && cls.empty != nullptr) release_slab(*cls.empty, store_->epoch());
  magazine.seen = magazine.pops();
}

unsigned Heap::reclaim(unsigned runs) noexcept {
  unsigned given = 0;
  for (unsigned i = 0; i < k_bins / k_decay_bins && given < runs; ++i) given += decay_bins(runs - given);
  give_departing();
  return given;
}

bool Heap::give_idle() noexcept {
  const std::uint64_t owned = owned_bytes_;
  for (unsigned bin = 0; bin < k_bins; ++bin) give_runs(bin, ~0U);
  give_departing();
  for (ClassState& cls : classes_) {
    while (cls.empty != nullptr) release_slab(*cls.empty, store_->epoch());
  }
  return owned_bytes_ != owned;
}

void Heap::give_unused() noexcept {
  for (unsigned round = 0; round < k_drain_rounds && drain(k_drain_blocks); ++round) {
  }
  for (unsigned bin = 0; bin < k_bins; ++bin) {
    const auto pops = static_cast<std::uint32_t>(bin_pops_[bin].get());
    if (bin_heads_[bin] != k_no_page && bin_uses_[bin].unused_pops == pops) give_runs(bin, ~0U);
    bin_uses_[bin].unused_pops = pops;
  }
  give_departing();
  for (unsigned size_class = 1; size_class < k_classes; ++size_class) {
    ClassState& cls = classes_[size_class];
    Magazine& magazine = magazines_[size_class];
    const std::uint64_t pops = magazine.pops();
    if (magazine.unused_pops == pops) {
      spill(size_class, ~0U);
      while (cls.empty != nullptr) release_slab(*cls.empty, store_->epoch());
    }
    magazine.unused_pops = pops;
  }
}

// What a step has to go by, and what it may still do.
struct Heap::AgeStep {
  pages::Epoch now;
  pages::Epoch before;
  unsigned* looks;
  unsigned* gives;

  bool look(unsigned cost = 1) const noexcept {
    if (*looks < cost) return false;
    *looks -= cost;
    return true;
  }
};

// Whether a run that the pass has looked at still lies where it did, and with it all below it: it was not handed out, which
// overwrites its age, and is in no other bin.
bool Heap::goes_on_at(PageIndex run, std::uint64_t pages) const noexcept {
  PageDesc& desc = descs_[run];
  // Who frees a block that it has cleared notes so before it enters its heap.
  const std::atomic_ref<std::uint16_t> slack(desc.run.use.slack);
  return desc.head.load(std::memory_order_relaxed) == head_of(RunState::heap) && desc.pages == pages &&
         (slack.load(std::memory_order_relaxed) & pages::k_slack_aged) != 0;
}

// False: the step ended before the bin did.
bool Heap::age_bin(unsigned bin, const AgeStep& step, Aging* at) noexcept {
  constexpr std::uint32_t k_mask = pages::k_slack_aged - 1;
  const std::size_t bytes = bin_pages_[bin] * os::k_page_size;
  PageIndex kept = at->run;
  at->run = k_no_page;
  if (kept != k_no_page && !goes_on_at(kept, bin_pages_[bin])) {
    // The owner took it and all above it: from the top again, unless it does so all the time.
    if (++at->restarts > k_most_restarts) return at->left = true;
    kept = k_no_page;
  }
  for (PageIndex run = kept == k_no_page ? bin_heads_[bin] : descs_[kept].run.next.load(std::memory_order_relaxed); run != k_no_page;) {
    const auto pause = [&] {
      at->run = kept;
      return false;
    };
    if (!step.look()) return pause();
    PageDesc& desc = descs_[run];
    const PageIndex next = desc.run.next.load(std::memory_order_relaxed);
    std::uint16_t& slack = desc.run.use.slack;
    if ((slack & pages::k_slack_aged) == 0) {
      slack = static_cast<std::uint16_t>((slack & pages::k_slack_zero) | pages::k_slack_aged | ((step.now - 1) & k_mask));
    }
    const pages::Epoch used = step.now - ((step.now - slack) & k_mask);
    if (used >= step.before) {
      kept = run;
    } else {
      if (*step.gives == 0) return pause();
      --*step.gives;
      if (kept == k_no_page) {
        bin_heads_[bin] = next;
      } else {
        descs_[kept].run.next.store(next, std::memory_order_relaxed);
      }
      owned_bytes_ -= bytes;
      store_->give_idle(run, bin_pages_[bin], (slack & pages::k_slack_zero) != 0, used);
    }
    run = next;
  }
  at->left = at->left || bin_heads_[bin] != k_no_page;
  return true;
}

// False: the step ended before the class did.
bool Heap::age_class(unsigned size_class, const AgeStep& step, Aging* at) noexcept {
  constexpr unsigned k_spilled = 8;
  ClassState& cls = classes_[size_class];
  Magazine& magazine = magazines_[size_class];
  const std::uint64_t pops = magazine.pops();
  if (!at->begun) at->used = false;
  at->begun = true;
  at->used = at->used || pops != magazine.aged_pops;
  magazine.aged_pops = pops;
  // Blocks at hand that nobody took for a while keep whole slabs from being empty.
  while (!at->used && magazine.held() != 0) {
    if (!step.look(2 * k_spilled)) return false;
    spill(size_class, k_spilled);
  }
  if (!at->walking) cls.hand = cls.empty;
  at->walking = true;
  while (Slab* const slab = cls.hand) {
    if (!step.look()) return false;
    if (slab->aged == 0) slab->aged = at->used ? step.now : step.now - 1;
    if (slab->aged - 1 < step.before) {
      if (*step.gives == 0) return false;
      --*step.gives;
      release_slab(*slab, static_cast<pages::Epoch>(slab->aged - 1));  // which moves the hand on
    } else {
      cls.hand = slab->next;
    }
  }
  at->begun = at->walking = false;
  at->left = at->left || magazine.held() != 0 || cls.empty != nullptr;
  return true;
}

bool Heap::age(pages::Epoch now, pages::Epoch before, Aging* at) noexcept {
  unsigned looks = k_age_looks;
  unsigned gives = k_age_gives;
  const AgeStep step{now, before, &looks, &gives};
  if (at->drains < k_most_drains && drain(k_age_drains)) {
    ++at->drains;
    return at->left = true;
  }
  if (departing_ != k_no_page) {
    store_->give_all(take_departing(), now - 1);
    return at->left = true;
  }
  for (; at->step < k_bins + k_classes; ++at->step) {
    if (!step.look()) return true;
    if (at->step < k_bins) {
      if (!age_bin(at->step, step, at)) return true;
    } else if (const unsigned size_class = at->step - k_bins; size_class != 0) {
      if (!age_class(size_class, step, at)) return true;
    }
  }
  return false;
}

// What the heap gave up for it is missed again in a loop, but not in a wave of another size, of which one block can be all there is.
void Heap::weigh_growth(std::uint64_t bytes, bool known, bool served, std::uint64_t peak) noexcept {
  if (served && bytes > peak / k_served_share) bytes = peak / k_served_share;
  if (known) {
    repeated_bytes_ += bytes;
    if (repeated_bytes_ > 2 * peak) repeated_bytes_ = 2 * peak;
  } else {
    repeated_bytes_ -= 2 * bytes < repeated_bytes_ ? 2 * bytes : repeated_bytes_;
  }
}

void Heap::flush() noexcept {
  while (drain(k_drain_blocks)) {
  }
  for (unsigned cls = 1; cls < k_classes; ++cls) spill(cls, ~0U);
  give_idle();
}

void Heap::count_at_hand(std::uint64_t* count, std::uint64_t* bytes) const noexcept {
  for (unsigned cls = 1; cls < k_classes; ++cls) {
    const std::uint64_t held = magazines_[cls].held();
    *count += held;
    *bytes += held * class_bytes(cls);
  }
}

std::size_t Heap::largest_cached() const noexcept {
  std::uint32_t pages = 0;
  for (unsigned bin = 0; bin < k_bins; ++bin) {
    if (bin_heads_[bin] != k_no_page && bin_pages_[bin] > pages) pages = bin_pages_[bin];
  }
  for (PageIndex run = departing_; run != k_no_page; run = descs_[run].run.next.load(std::memory_order_relaxed)) {
    if (descs_[run].pages > pages) pages = descs_[run].pages;
  }
  return std::size_t{pages} * os::k_page_size;
}

const char* Heap::validate() noexcept {
  if (static_cast<std::int64_t>(headroom_bytes_.get() | headroom_count_.get()) < 0) return "HP-5";
  const PageIndex committed = store_->committed_pages();
  const auto check_bin = [&](unsigned bin) -> const char* {
    PageIndex count = 0;
    for (PageIndex p = bin_heads_[bin]; p != k_no_page; p = descs_[p].run.next.load(std::memory_order_relaxed)) {
      if (p >= committed || descs_[p].pages != bin_pages_[bin] || descs_[p].head.load() != head_of(RunState::heap)) return "HP-2";
      if (++count > committed) return "HP-2";  // a circle
    }
    return bin_heads_[bin] != k_no_page && set_of(bin_pages_[bin]) != bin % k_bin_sets ? "HP-3" : nullptr;
  };
  for (unsigned bin = 0; bin < k_bins; ++bin) {
    if (const char* const broken = check_bin(bin)) return broken;
    for (unsigned other = bin + k_bin_sets; other < k_bins && bin_pages_[bin] != 0; other += k_bin_sets) {
      if (bin_pages_[other] == bin_pages_[bin]) return "HP-3";
    }
  }
  std::uint64_t departing_pages = 0;
  unsigned departing_count = 0;
  for (PageIndex run = departing_; run != k_no_page; run = descs_[run].run.next.load(std::memory_order_relaxed)) {
    if (run >= committed || descs_[run].head.load() != head_of(RunState::heap) || departing_count++ == k_departing_most) return "HP-7";
    departing_pages += descs_[run].pages;
  }
  if (departing_count != departing_count_.get() || departing_pages != departing_pages_) return "HP-7";
  if (bin_pages_[k_no_bin] != 0 || bin_heads_[k_no_bin] != k_no_page) return "HP-3";
  if (outgoing_count_.get() >= k_outgoing_most) return "SL-2";
  for (unsigned i = 0; i < outgoing_count_.get(); ++i) {
    const Outgoing& one = outgoing_[i];
    const bool own = one.list >= remote_slabs_ && one.list < remote_slabs_ + k_classes;
    if (own || (one.state->load() & k_live) != 0 || (one.slab->free >> one.block & 1) != 0) return "SL-2";
  }
  for (unsigned cls = 1; cls < k_classes; ++cls) {
    for (const Item* item = item_at(magazines_[cls].top()); item != item_at(magazines_[cls].bottom); --item) {
      const auto offset = static_cast<std::size_t>(static_cast<char*>(item->block) - base_);
      if (offset >= std::size_t{committed} * os::k_page_size) return "HP-1";
      const auto page = static_cast<PageIndex>(offset / os::k_page_size);
      const PageDesc& desc = descs_[page];
      if (desc.head.load() != head_of(RunState::slab)) return "HP-1";
      const Slab& slab = *slab_of_page(desc, page);
      const auto unit = static_cast<unsigned>(static_cast<std::size_t>(static_cast<char*>(item->block) - slab.base) / k_unit);
      if (slab.size_class != cls || (slab.free & slab.bit_of(unit)) != 0) return "HP-1";
      if (item->state != state_of_unit(desc, offset / k_unit) || (item->state->load() & k_live) != 0) return "HP-1";
    }
    for (Slab* list : {classes_[cls].partial, classes_[cls].empty}) {
      const bool empties = list != nullptr && list == classes_[cls].empty;
      for (Slab* slab = list; slab != nullptr; slab = slab->next) {
        if (slab->free == 0 || slab->is_empty() != empties) return "SL-3";
        const std::uint64_t remote = slab->remote.load();
        if (((slab->free | remote) & ~slab->all) != 0 || (slab->free & remote) != 0) return "SL-2";
        for (std::uint64_t rest = slab->free | remote; rest != 0; rest &= rest - 1) {
          if ((slab->states()[base::lowest_bit(rest) * cls].load() & k_live) != 0) return "SL-2";
        }
      }
    }
  }
  return nullptr;
}

}  // namespace rtpool::blocks
