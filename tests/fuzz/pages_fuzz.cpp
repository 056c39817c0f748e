// Free page runs and the page store, each against a model that knows who has every page.
//
// The first byte chooses which: PageRuns alone (all of its functions, a map of the pages), or PageStore on a kernel that
// refuses the calls the input names (growth, windows over absent runs, exchange, trimming, epochs, pending frees, records). After
// every step: PR-1..4 and PD-1..3, the sums, that runs do not overlap, that memory called zero is zero; and that a store is
// refused memory only by the kernel, or where what it has handed out leaves no room for it under the limit.
#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "fake_memory.hpp"
#include "pages/page_store.hpp"
#include "support.hpp"

namespace rtpool::fuzz {
namespace {

using namespace pages;

constexpr unsigned k_most_steps = 250;

struct Piece {
  PageIndex first;
  std::uint32_t pages;
  std::uint8_t seed;
};

std::uint32_t pages_asked(Input& input) {
  const unsigned kind = input.byte();
  switch (kind % 4) {
    case 0: return 1 + kind / 4 % 16;
    case 1: return 1 + input.byte();
    case 2: return 1 + input.word() % 3000;
    default: return k_frame_pages * (1 + kind / 4 % 4) + input.byte() % 3 - 1;
  }
}

// --- PageRuns ---------------------------------------------------------------------------------------------------------

class RunsGame {
 public:
  explicit RunsGame(Input input) : input_(input), descs_(k_descs_before + k_pages), owner_(k_pages, k_outside), zero_(k_pages, true) {
    runs_.attach(&desc(0));
  }

  void play() {
    for_each_step(input_, k_most_steps, [this] {
      act();
      verify();
    });
  }

 private:
  static constexpr PageIndex k_pages = 4 * k_frame_pages;
  static constexpr std::uint8_t k_outside = 0;  // beyond what is committed
  static constexpr std::uint8_t k_free = 1;
  static constexpr std::uint8_t k_absent = 2;
  static constexpr std::uint8_t k_held = 3;

  void act() {
    switch (input_.byte() % 10) {
      case 0: grow(); break;
      case 1:
      case 2:
      case 3: keep(runs_.take(asked_), asked_, k_free); break;
      case 4: take_window(); break;
      case 5:
      case 6: give(false); break;
      case 7: give(true); break;
      case 8: lengthen(); break;
      default: take_whole();
    }
    asked_ = pages_asked(input_);
  }

  void grow() {
    const std::uint32_t more = std::min<std::uint32_t>(1 + input_.word() % 2000, k_pages - committed_);
    if (more == 0) return;
    const PageIndex first = committed_;
    committed_ += more;
    set(first, more, k_free, true);
    runs_.give(first, more, true, committed_);
  }

  void keep(const PageRuns::Taken& taken, std::uint32_t pages, std::uint8_t from) {
    if (taken.first == k_no_page) {
      // Rounding up may miss a run that is a little longer; one of the next range's size is never missed.
      if (from == k_free) FUZZ_EXPECT(pages > k_pages || longest(k_free) < pages + pages / 8 + 2);
      return;
    }
    FUZZ_EXPECT(taken.first < committed_ && pages <= committed_ - taken.first);
    FUZZ_EXPECT(desc(taken.first).state() == RunState::taken && desc(taken.first).pages == pages);
    for (PageIndex p = taken.first; p < taken.first + pages; ++p) {
      FUZZ_EXPECT(owner_[p] == from);
      FUZZ_EXPECT(!taken.zero || zero_[p]);
    }
    set(taken.first, pages, k_held, taken.zero);
    held_.push_back({taken.first, pages, 0});
  }

  // What a window is taken for becomes one run; its absent parts have been made ready.
  void take_window() {
    const bool search = input_.byte() % 4 == 0;
    const PageRuns::Window window = search ? runs_.search_window(asked_, committed_) : runs_.find_window(asked_, committed_);
    if (window.first == k_no_page) {
      FUZZ_EXPECT(!search || longest_free() < asked_);
      return;
    }
    FUZZ_EXPECT(window.pages == asked_ && window.first + asked_ <= committed_);
    std::uint32_t absent = 0;
    bool zero = true;
    for (PageIndex p = window.first; p < window.first + asked_; ++p) {
      FUZZ_EXPECT(owner_[p] == k_free || owner_[p] == k_absent);
      absent += owner_[p] == k_absent ? 1 : 0;
      zero = zero && zero_[p];
    }
    FUZZ_EXPECT(absent == window.absent);
    runs_.take_window(window, committed_);
    set(window.first, asked_, k_held, false);
    verify();
    const bool all_zero = runs_.join(window.first, asked_);
    FUZZ_EXPECT(!all_zero || zero);
    FUZZ_EXPECT(desc(window.first).state() == RunState::taken && desc(window.first).pages == asked_);
    set(window.first, asked_, k_held, all_zero);
    held_.push_back({window.first, asked_, 0});
  }

  void give(bool absent) {
    if (held_.empty()) return;
    const std::size_t index = input_.below(held_.size());
    const Piece piece = held_[index];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    const bool zero = absent || input_.byte() % 2 == 0;
    set(piece.first, piece.pages, absent ? k_absent : k_free, zero);
    runs_.give(piece.first, piece.pages, zero, committed_, absent);
  }

  void lengthen() {
    if (held_.empty()) return;
    Piece& piece = held_[input_.below(held_.size())];
    const PageIndex right = piece.first + piece.pages;
    bool fits = asked_ <= committed_ - right;
    for (PageIndex p = right; fits && p < right + asked_; ++p) fits = owner_[p] == k_free;
    FUZZ_EXPECT(runs_.take_right_neighbour(piece.first, piece.pages, asked_, committed_) == fits);
    if (!fits) return;
    set(right, asked_, k_held, false);
    piece.pages += asked_;
  }

  void take_whole() {
    const unsigned list = PageRuns::list_of(asked_);
    const PageIndex first = runs_.first_in(list);
    if (first == k_no_page) return;
    const std::uint32_t pages = desc(first).pages;
    runs_.take_whole(first);
    keep({first, false}, pages, k_free);
  }

  std::uint32_t longest(std::uint8_t kind) const {
    std::uint32_t most = 0;
    std::uint32_t run = 0;
    for (PageIndex p = 0; p < committed_; ++p) {
      run = owner_[p] == kind ? run + 1 : 0;
      most = std::max(most, run);
    }
    return most;
  }

  std::uint32_t longest_free() const {
    std::uint32_t most = 0;
    std::uint32_t run = 0;
    for (PageIndex p = 0; p < committed_; ++p) {
      run = owner_[p] == k_free || owner_[p] == k_absent ? run + 1 : 0;
      most = std::max(most, run);
    }
    return most;
  }

  void set(PageIndex first, std::uint32_t pages, std::uint8_t owner, bool zero) {
    for (PageIndex p = first; p < first + pages; ++p) {
      owner_[p] = owner;
      zero_[p] = zero;
    }
  }

  void verify() {
    if (const char* const id = runs_.validate(committed_)) broken(__FILE__, __LINE__, id, "");
    std::uint64_t free = 0;
    std::uint64_t absent = 0;
    for (PageIndex p = 0; p < committed_; ++p) {
      free += owner_[p] == k_free ? 1 : 0;
      absent += owner_[p] == k_absent ? 1 : 0;
    }
    FUZZ_EXPECT(runs_.free_pages() == free && runs_.absent_pages() == absent);
    const PageRuns::Window tail = runs_.tail(committed_);
    FUZZ_EXPECT(tail.first + tail.pages == committed_);
    for (PageIndex p = tail.first; p < committed_; ++p) FUZZ_EXPECT(owner_[p] == k_free || owner_[p] == k_absent);
    FUZZ_EXPECT(runs_.largest() == longest(k_free));
  }

  Input input_;
  PageDesc& desc(PageIndex page) { return descs_[k_descs_before + page]; }

  std::vector<PageDesc> descs_;
  PageRuns runs_;
  PageIndex committed_ = 0;
  std::uint32_t asked_ = 1;
  std::vector<std::uint8_t> owner_;
  std::vector<bool> zero_;
  std::vector<Piece> held_;
};

// --- PageStore --------------------------------------------------------------------------------------------------------

class StoreGame {
 public:
  explicit StoreGame(Input input) : input_(input) {}

  void play() {
    GrowthOptions options;
    const unsigned shape = input_.byte();
    constexpr std::size_t k_limits[] = {std::size_t{1} << 20, std::size_t{3} << 20, std::size_t{7} << 20, std::size_t{20} << 20};
    options.limit = k_limits[shape % 4];
    options.prefault = (shape & 4) != 0;
    options.lock = (shape & 8) != 0;
    options.strict = (shape & 16) != 0;
    options.explicit_huge = (shape & 32) != 0 ? os::k_huge_page_size : 0;
    explicit_ = options.explicit_huge != 0;
    if ((shape & 64) != 0) memory_.fail_any_at = input_.byte() % 8;
    const GrowthFailure failure = store_.initialise(memory_, options, 1);
    if (failure.error == 0) {
      for_each_step(input_, k_most_steps, [this] {
        act();
        verify();
      });
      end();
      store_.destroy();
    }
    counts().faults += static_cast<std::uint64_t>(memory_.refusals);
  }

 private:
  static constexpr std::size_t k_most_pieces = 200;

  void act() {
    GrowthFailure failure;
    const unsigned code = input_.byte();
    const std::size_t before = store_.capacity();
    switch (code % 16) {
      case 0:
      case 1: take(store_.take(asked_)); break;
      case 2:
      case 3:
      case 4: {
        if (held_.size() >= k_most_pieces) break;
        const int refusals = memory_.refusals;
        const std::size_t most = (code & 16) != 0 ? held_bytes() / 4 * 5 : SIZE_MAX;
        const PageRuns::Taken taken = store_.take_or_grow(asked_, &failure, most);
        FUZZ_EXPECT((taken.first == k_no_page) == (failure.error != 0));
        // What fits is had, unless the kernel refuses.
        const bool kernel = memory_.refusals != refusals || failure.step == GrowthStep::prefault;
        // Where ordinary memory is among explicit huge pages, not all of what is free is whole ones.
        const bool mixed = explicit_ && store_.huge_error() != 0;
        if (taken.first == k_no_page && !kernel && !mixed) FUZZ_EXPECT(needed() > store_.options().limit);
        take(taken);
        if (taken.first != k_no_page && memory_.refusals == refusals && !mixed && most != SIZE_MAX) {
          FUZZ_EXPECT(store_.capacity() <= std::max(std::max(most, pinned_bytes()) + 4 * os::k_huge_page_size, before));
        }
        break;
      }
      case 5: (void)store_.grow(asked_); break;
      case 6:
      case 7:
      case 8: give(code); break;
      case 9: give_while_locked(); break;
      case 10: lengthen(); break;
      case 11: trim(code); break;
      case 12: records(); break;
      case 13: memory_.fail_any_at = memory_.all_calls + input_.byte() % 6; break;
      case 14: {
        test::FakeMemory::Dial& dial = memory_.dials[input_.byte() % test::FakeMemory::k_kinds];
        dial.fail_from = dial.calls;
        dial.fail_count = 1 + input_.byte() % 3;
        break;
      }
      default:
        memory_.available = (code & 16) != 0 ? std::size_t{input_.byte()} << 20 : 0;
        memory_.fail_any_at = -1;
    }
    asked_ = pages_asked(input_);
  }

  char* at(PageIndex page) { return store_.view().base + std::size_t{page} * os::k_page_size; }

  // The first 64 bytes of each page carry the piece's mark.
  void mark(const Piece& piece) {
    for (PageIndex p = piece.first; p < piece.first + piece.pages; ++p) std::memset(at(p), piece.seed, 64);
  }
  void expect_marked(const Piece& piece) {
    for (PageIndex p = piece.first; p < piece.first + piece.pages; ++p) {
      for (unsigned i = 0; i < 64; ++i) FUZZ_EXPECT(static_cast<unsigned char>(at(p)[i]) == piece.seed);
    }
  }

  void take(const PageRuns::Taken& taken) {
    if (taken.first == k_no_page) return;
    const Piece piece{taken.first, asked_, static_cast<std::uint8_t>(1 + ++seed_ % 250)};
    FUZZ_EXPECT(piece.first + piece.pages <= store_.committed_pages());
    for (const Piece& other : held_) {
      FUZZ_EXPECT(piece.first + piece.pages <= other.first || other.first + other.pages <= piece.first);
    }
    if (taken.zero) FUZZ_EXPECT(all_zero(at(piece.first), std::size_t{piece.pages} * os::k_page_size));
    mark(piece);
    held_.push_back(piece);
  }

  Piece remove_one() {
    const std::size_t index = input_.below(held_.size());
    const Piece piece = held_[index];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    expect_marked(piece);
    return piece;
  }

  void give(unsigned code) {
    if (held_.empty()) return;
    const Piece piece = remove_one();
    const bool zero = (code & 16) != 0;
    if (zero) std::memset(at(piece.first), 0, std::size_t{piece.pages} * os::k_page_size);
    if ((code & 32) != 0) return store_.give_soon(piece.first, piece.pages, zero);
    store_.give(piece.first, piece.pages, zero);
  }

  void trim(unsigned code) {
    const std::uint64_t returned = store_.returned_bytes();
    const std::size_t before = store_.capacity();
    std::size_t given = 0;
    if ((code & 32) != 0) {
      given = store_.trim();
    } else {
      if ((code & 64) != 0) store_.begin_epoch();
      PageStore::Trimming at;
      while (store_.trim_step(store_.epoch() - std::min<Epoch>(store_.epoch(), code >> 7), 1, &at)) {
      }
      given = at.given;
    }
    FUZZ_EXPECT(store_.returned_bytes() - returned == given && before - store_.capacity() == given);
  }

  std::size_t held_bytes() const {
    std::size_t bytes = 0;
    for (const Piece& piece : held_) bytes += std::size_t{piece.pages} * os::k_page_size;
    return bytes;
  }

  // What cannot serve elsewhere: explicit huge pages of which a part is in use.
  std::size_t pinned_bytes() const {
    if (!explicit_) return held_bytes();
    std::set<PageIndex> pinned;
    for (const Piece& piece : held_) {
      for (PageIndex p = piece.first; p < piece.first + piece.pages; ++p) pinned.insert(p / k_frame_pages);
    }
    return pinned.size() * os::k_huge_page_size;
  }
  // What must be there for the request, at the worst: with explicit huge pages it begins and ends anywhere in one.
  std::size_t needed() const {
    const std::size_t bytes = std::size_t{asked_} * os::k_page_size;
    if (!explicit_) return held_bytes() + bytes;
    return pinned_bytes() + (bytes + os::k_huge_page_size - 1) / os::k_huge_page_size * os::k_huge_page_size;
  }

  // While somebody has the store's lock frees go to the pending list; whoever has it next drains it.
  void give_while_locked() {
    store_.lock();
    for (unsigned left = input_.byte() % 48; left != 0 && !held_.empty(); --left) {
      const Piece piece = remove_one();
      const int calls = memory_.all_calls;
      store_.give_soon(piece.first, piece.pages, false);
      FUZZ_EXPECT(memory_.all_calls == calls);
    }
    store_.unlock();
  }

  void lengthen() {
    if (held_.empty()) return;
    Piece& piece = held_[input_.below(held_.size())];
    expect_marked(piece);
    if (!store_.extend_run(piece.first, piece.pages, asked_)) return;
    piece.pages += asked_;
    mark(piece);
  }

  void records() {
    const std::size_t bytes = 64 * (1 + std::size_t{input_.byte()} % 6);
    const unsigned what = input_.byte();
    if (what % 4 == 0) {
      (void)store_.reserve_records(std::size_t{input_.word()} << 3);
    } else if (what % 4 == 1 && !records_.empty()) {
      const Record record = records_.back();
      records_.pop_back();
      FUZZ_EXPECT(filled(record.memory, record.bytes, record.seed));
      store_.give_record(record.memory, record.bytes);
    } else if (void* const memory = store_.take_record(bytes, what % 4 == 2)) {
      FUZZ_EXPECT(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0);
      records_.push_back({memory, bytes, ++seed_});
      fill(memory, bytes, seed_);
    }
  }

  void verify() {
    if (const char* const id = store_.validate()) broken(__FILE__, __LINE__, id, "");
    FUZZ_EXPECT(store_.capacity() <= store_.options().limit);
    FUZZ_EXPECT(store_.largest_free() <= store_.free_bytes());
    FUZZ_EXPECT(store_.free_bytes() + held_bytes() == store_.capacity());  // `largest_free` has drained what was pending
  }

  void end() {
    while (!held_.empty()) {
      const Piece piece = remove_one();
      store_.give(piece.first, piece.pages, false);
    }
    for (const Record& record : records_) FUZZ_EXPECT(filled(record.memory, record.bytes, record.seed));
    verify();
    FUZZ_EXPECT(store_.free_bytes() == store_.capacity());
  }

  struct Record {
    void* memory;
    std::size_t bytes;
    std::uint8_t seed;
  };

  Input input_;
  test::FakeMemory memory_;
  PageStore store_;
  std::uint32_t asked_ = 1;
  std::uint8_t seed_ = 0;
  bool explicit_ = false;
  std::vector<Piece> held_;
  std::vector<Record> records_;
};

}  // namespace

void play(Input input) {
  if (input.byte() % 2 == 0) {
    RunsGame(input).play();
  } else {
    StoreGame(input).play();
  }
}

}  // namespace rtpool::fuzz
