// Small blocks that lie between others which their maker still has: the maker sleeps, the last process drops them, and
// everybody can use them.
#include <cerrno>
#include <utility>
#include <vector>

#include "shared/step.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

constexpr std::uint64_t k_lent_pool = 1 << 20;

void fill(void* block, std::size_t size, int mark) { std::memset(block, mark, size); }

bool holds(const void* block, std::size_t size, int mark) {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  for (std::size_t i = 0; i < size; ++i) {
    if (bytes[i] != mark) return false;
  }
  return true;
}

// All that can be had, each block filled.
std::vector<void*> take_all(SharedPool* pool, std::size_t size, int mark) {
  std::vector<void*> taken;
  while (void* const block = pool->allocate(size)) {
    fill(block, size, mark);
    taken.push_back(block);
  }
  return taken;
}

void release_all(SharedPool* pool, const std::vector<void*>& blocks) {
  for (void* const block : blocks) pool->release(block);
}

// A maker that fills the pool, keeps each fourth block and sends the others; then it sleeps until it is told, and its own
// blocks must be as they were. Afterwards it works on: `then`, with what it kept.
template <class Then>
pid_t start_maker(Pair& pair, std::size_t size, Then then) {
  return start_child([&pair, size, then] {
    if (Address address; pair.pool == nullptr) {  // no child of the other's
      if (::read(pair.to_maker[0], &address, sizeof address) != sizeof address) return 10;
      pair.pool = SharedPool::attach_address(address, Options{}, test::machine_shared_memory()).pool;
      if (pair.pool == nullptr) return 11;
    }
    std::vector<void*> kept;
    for (unsigned i = 0;; ++i) {
      if (i % 4 != 0) {
        if (!pair.make_and_send(size)) break;
        continue;
      }
      void* const own = pair.pool->allocate(size);
      if (own == nullptr) break;
      fill(own, size, 0x77);
      kept.push_back(own);
    }
    const Sent end{};
    if (::write(pair.to_other[1], &end, sizeof end) != sizeof end) return 1;
    Pair::wait(pair.to_maker);
    for (void* const own : kept) {
      if (!holds(own, size, 0x77)) return 2;
    }
    if (const int wrong = then(kept); wrong != 0) return wrong;
    release_all(pair.pool, kept);
    return pair.pool->check().ok ? 0 : 3;
  });
}

std::vector<BlockRef> receive_all(Pair& pair) {
  std::vector<BlockRef> refs;
  Sent sent;
  while (::read(pair.to_other[0], &sent, sizeof sent) == sizeof sent && sent.ref) {
    BlockRange range;
    EXPECT_EQ(pair.pool->arrive(sent.ref, sent.sender, &range), 0);
    refs.push_back(sent.ref);
  }
  return refs;
}

void drop_all(Pair& pair, const std::vector<BlockRef>& refs) {
  for (const BlockRef& ref : refs) pair.pool->drop(ref, pair.pool->lineage());
}

TEST(Borrowing, WhatLiesBetweenTheMakersOwnIsFreeForOthers) {
  for (const std::size_t size : {std::size_t{3000}, std::size_t{5000}, std::size_t{20'000}}) {
    Pair pair(k_lent_pool);
    const pid_t maker = start_maker(pair, size, [&pair, size](const std::vector<void*>&) {
      if (pair.pool->allocate(size) != nullptr) return 4;  // all of it is somebody else's now
      if (!pair.pool->check().ok) return 5;
      Pair::tell(pair.to_other);
      Pair::wait(pair.to_maker);
      void* const again = pair.pool->allocate(size);
      if (again == nullptr) return 6;
      pair.pool->release(again);
      return 0;
    });
    const std::vector<BlockRef> refs = receive_all(pair);
    ASSERT_GE(refs.size(), 30U);
    EXPECT_EQ(pair.pool->allocate(size), nullptr) << "they are held";
    drop_all(pair, refs);
    const std::uint64_t kept = pair.pool->stats().common.current_count;
    EXPECT_LE(kept, refs.size() / 3 + 1);

    const std::vector<void*> mine = take_all(pair.pool, size, 0x11);
    EXPECT_EQ(mine.size(), refs.size()) << "nobody holds any of these, size " << size;
    EXPECT_EQ(pair.pool->stats().common.current_count, kept + mine.size());
    EXPECT_EQ(pair.pool->stats().own_count, mine.size());
    EXPECT_TRUE(pair.pool->check().ok);
    for (void* const block : mine) EXPECT_TRUE(holds(block, size, 0x11));
    Pair::tell(pair.to_maker);
    ASSERT_TRUE(Pair::wait(pair.to_other));
    release_all(pair.pool, mine);
    EXPECT_EQ(pair.pool->stats().common.current_count, kept);
    Pair::tell(pair.to_maker);
    EXPECT_EQ(end_of(maker), 0) << "size " << size;
    expect_empty(pair.pool);
  }
}

TEST(Borrowing, SmallerOnesFitAndLargerOnesDoNot) {
  Pair pair(k_lent_pool);
  const pid_t maker = start_maker(pair, 5000, [](const std::vector<void*>&) { return 0; });
  const std::vector<BlockRef> refs = receive_all(pair);
  drop_all(pair, refs);
  EXPECT_EQ(pair.pool->allocate(9000), nullptr);
  const std::vector<void*> mine = take_all(pair.pool, 100, 0x22);
  EXPECT_GE(mine.size(), refs.size());
  void* const moved = pair.pool->resize(mine[0], 6000);
  ASSERT_EQ(moved, mine[0]) << "it is large enough";
  EXPECT_GE(pair.pool->usable_size(moved), 6000U);
  EXPECT_TRUE(holds(moved, 100, 0x22));
  release_all(pair.pool, mine);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  expect_empty(pair.pool);
}

TEST(Borrowing, NoHandleOfThePastLeadsToABorrowedBlock) {
  Pair pair(k_lent_pool);
  const pid_t maker = start_maker(pair, 5000, [](const std::vector<void*>&) { return 0; });
  const std::vector<BlockRef> refs = receive_all(pair);
  drop_all(pair, refs);
  const std::vector<void*> mine = take_all(pair.pool, 5000, 0x33);
  for (const BlockRef& ref : refs) {
    BlockRange range;
    EXPECT_EQ(pair.pool->hold(ref, &range), ESTALE);
  }
  release_all(pair.pool, mine);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  expect_empty(pair.pool);
}

// A borrowed block is shared on, to the very process in whose memory it lies and which holds it last.
TEST(Borrowing, TheMakerOpensItsOwnMemory) {
  Pair pair(k_lent_pool);
  const pid_t maker = start_maker(pair, 5000, [&pair](const std::vector<void*>&) {
    Sent sent;
    if (::read(pair.to_maker[0], &sent, sizeof sent) != sizeof sent) return 4;
    BlockRange range;
    if (pair.pool->arrive(sent.ref, sent.sender, &range) != 0) return 5;
    Pair::tell(pair.to_other);
    Pair::wait(pair.to_maker);
    if (!holds(pair.pool->data() + range.offset, 5000, 0x44)) return 6;
    if (!pair.pool->check().ok) return 7;
    pair.pool->drop(sent.ref, pair.pool->lineage());
    void* const again = pair.pool->allocate(5000);
    if (again != pair.pool->data() + range.offset) return 8;
    pair.pool->release(again);
    return 0;
  });
  const std::vector<BlockRef> refs = receive_all(pair);
  drop_all(pair, refs);
  std::vector<void*> mine = take_all(pair.pool, 5000, 0x44);
  Pair::tell(pair.to_maker);
  Sent sent;
  BlockRange range;
  ASSERT_EQ(pair.pool->share(mine.back(), &sent.ref, &range), 0);
  ASSERT_EQ(pair.pool->depart(sent.ref, &sent.sender), 0);
  ASSERT_EQ(::write(pair.to_maker[1], &sent, sizeof sent), static_cast<ssize_t>(sizeof sent));
  ASSERT_TRUE(Pair::wait(pair.to_other));
  pair.pool->drop(sent.ref, pair.pool->lineage());
  pair.pool->release(mine.back());
  mine.pop_back();
  // The others are taken, and this one is held: only when the maker drops it is there one.
  EXPECT_EQ(pair.pool->allocate(5000), nullptr);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  release_all(pair.pool, mine);
  expect_empty(pair.pool);
}

TEST(Borrowing, AForkedChildKeepsWhatItsParentBorrowed) {
  Pair pair;
  const pid_t maker = start_maker(pair, 5000, [](const std::vector<void*>&) { return 0; });
  pair.pool = make_pool(k_lent_pool);
  const Address address = pair.pool->address();
  ASSERT_EQ(::write(pair.to_maker[1], &address, sizeof address), static_cast<ssize_t>(sizeof address));
  const std::vector<BlockRef> refs = receive_all(pair);
  drop_all(pair, refs);
  const std::vector<void*> mine = take_all(pair.pool, 5000, 0x55);
  int to_child[2];
  int from_child[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(from_child), 0);
  const pid_t child = start_child([&] {
    Pair::wait(to_child);
    if (!holds(mine[0], 5000, 0x55)) return 1;
    Sent sent;
    BlockRange range;
    if (pair.pool->share(mine[0], &sent.ref, &range) != 0) return 2;  // what it inherited goes on to others
    if (pair.pool->depart(sent.ref, &sent.sender) != 0) return 3;
    return ::write(from_child[1], &sent, sizeof sent) == sizeof sent ? 0 : 4;
  });
  release_all(pair.pool, mine);
  for (void* const block : take_all(pair.pool, 5000, 0x66)) pair.pool->release(block);
  Pair::tell(to_child);
  EXPECT_EQ(end_of(child), 0);
  Sent sent;
  BlockRange range;
  ASSERT_EQ(::read(from_child[0], &sent, sizeof sent), static_cast<ssize_t>(sizeof sent));
  ASSERT_TRUE(pair.pool->recover());
  ASSERT_EQ(pair.pool->arrive(sent.ref, sent.sender, &range), 0);
  const std::vector<void*> others = take_all(pair.pool, 5000, 0x67);
  EXPECT_EQ(others.size(), refs.size() - 1);
  EXPECT_TRUE(holds(pair.pool->data() + range.offset, 5000, 0x55));
  pair.pool->drop(sent.ref, pair.pool->lineage());
  release_all(pair.pool, others);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  expect_empty(pair.pool);
  for (const int fd : {to_child[0], to_child[1], from_child[0], from_child[1]}) ::close(fd);
}

unsigned g_borrower_steps_left = 0;

void die_as_borrower(Step) {
  if (--g_borrower_steps_left == 0) ::raise(SIGKILL);
}

// At each step of it: the maker's stay whole, and everybody can use the rest.
TEST(Borrowing, ABorrowerThatIsKilledLosesNothing) {
  bool through = false;
  for (unsigned at = 1; !through; ++at) {
    ASSERT_LT(at, 3000U);
    Pair pair(256 << 10);
    const pid_t maker = start_maker(pair, 5000, [](const std::vector<void*>&) { return 0; });
    const std::vector<BlockRef> refs = receive_all(pair);
    drop_all(pair, refs);
    const int status = in_child([&] {
      g_borrower_steps_left = at;
      step_hook = die_as_borrower;
      void* const first = pair.pool->allocate(5000);
      void* const second = pair.pool->allocate(5000);
      if (first == nullptr || second == nullptr) return 1;
      BlockRef ref;
      BlockRange range;
      Tenancy sender;
      if (pair.pool->share(second, &ref, &range) != 0 || pair.pool->depart(ref, &sender) != 0) return 2;
      pair.pool->release(first);
      pair.pool->release(second);
      pair.pool->drop(ref, pair.pool->lineage());
      step_hook = nullptr;
      return 0;
    });
    through = WIFEXITED(status);
    if (through) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
    }
    const pool::CheckResult check = pair.pool->check();
    EXPECT_TRUE(check.ok) << check.invariant << ": " << check.text;
    (void)pair.pool->reclaim(0);
    const std::vector<void*> mine = take_all(pair.pool, 5000, 0x12);
    EXPECT_EQ(mine.size(), refs.size()) << "killed at step " << at;
    release_all(pair.pool, mine);
    Pair::tell(pair.to_maker);
    EXPECT_EQ(end_of(maker), 0) << "killed at step " << at;
    expect_empty(pair.pool);
    ASSERT_FALSE(::testing::Test::HasFailure()) << "killed at step " << at;
  }
}

TEST(Borrowing, WhatIsBorrowedOutlivesItsMaker) {
  Pair pair(k_lent_pool);
  const pid_t maker = start_maker(pair, 5000, [](const std::vector<void*>&) { return 0; });
  const std::vector<BlockRef> refs = receive_all(pair);
  drop_all(pair, refs);
  const std::vector<void*> mine = take_all(pair.pool, 5000, 0x13);
  EXPECT_EQ(mine.size(), refs.size());
  ::kill(maker, SIGKILL);
  EXPECT_EQ(WTERMSIG(end_of(maker)), SIGKILL);
  std::vector<void*> more = take_all(pair.pool, 5000, 0x14);  // what the maker had kept, where whole slabs are free
  for (void* const block : mine) EXPECT_TRUE(holds(block, 5000, 0x13));
  EXPECT_TRUE(pair.pool->check().ok);
  release_all(pair.pool, mine);
  release_all(pair.pool, more);
  expect_empty(pair.pool);
}

}  // namespace
}  // namespace rtpool::shared
