// Promises of shared/shared_pool: the contract of a pool, blocks in several processes, forks, names, both orders of exit.
#include "shared/shared_pool.hpp"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bytes.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

bool has_name(const std::string& name) {
  int fd = -1;
  if (os::shared_memory().open_named(name.c_str(), &fd) != 0) return false;
  os::shared_memory().close(fd);
  return true;
}

TEST(SharedPool, BlocksAreAlignedDistinctAndReused) {
  SharedPool* pool = make_pool(64 << 20);
  for (const std::size_t size : {0UL, 1UL, 64UL, 4032UL, 4033UL, 70000UL, 8UL << 20}) {
    void* const block = pool->allocate(size);
    ASSERT_NE(block, nullptr) << size;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % (size >= 4033 ? 4096 : 64), 0U);
    EXPECT_GE(pool->usable_size(block), size);
    EXPECT_TRUE(pool->contains(block));
    EXPECT_EQ(SharedPool::find(block), pool);
    std::memset(block, 0xff, size);
    pool->release(block);
    EXPECT_EQ(pool->allocate(size), block);
    pool->release(block);
    char* const zeroed = static_cast<char*>(pool->allocate_zeroed(size));
    ASSERT_TRUE(test::all_are(0, zeroed, size));
    pool->release(zeroed);
  }
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, ResizeKeepsTheContents) {
  SharedPool* pool = make_pool(16 << 20);
  char* block = static_cast<char*>(pool->resize(nullptr, 100));
  std::memset(block, 7, 100);
  for (const std::size_t size : {5000UL, 1UL << 20, 3000UL, 10UL}) {
    block = static_cast<char*>(pool->resize(block, size));
    ASSERT_NE(block, nullptr);
    for (std::size_t i = 0; i < 10; ++i) ASSERT_EQ(block[i], 7);
  }
  EXPECT_EQ(pool->resize(block, std::size_t{1} << 40), nullptr);
  EXPECT_EQ(block[0], 7);
  pool->release(block);
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, FullFailsOrFallsBack) {
  SharedPool* pool = make_pool(1 << 20);
  EXPECT_EQ(pool->allocate(2 << 20), nullptr);
  EXPECT_EQ(pool->stats().common.failures, 1U);
  let_go(pool);
  pool = make_pool(1 << 20, "", true);
  void* const outside = pool->allocate(2 << 20);
  ASSERT_NE(outside, nullptr);
  EXPECT_FALSE(pool->contains(outside));
  EXPECT_EQ(pool->stats().common.fallback_count, 1U);
  void* const moved = pool->resize(outside, 3 << 20);
  pool->release(moved);
  EXPECT_EQ(pool->stats().common.fallback_count, 0U);
  expect_empty(pool);
  let_go(pool);
}

// Memory goes back in whole pages of the kernel, which the data of a small pool need not begin with.
TEST(SharedPool, TrimGivesBackAndKeepsWhatIsAlive) {
  for (const std::uint64_t size : {std::uint64_t{9} << 20, std::uint64_t{9'000'000}, std::uint64_t{64} << 20}) {
    SharedPool* pool = make_pool(size);
    auto* const kept = static_cast<char*>(pool->allocate(20'000));
    std::memset(kept, 5, 20'000);
    auto* const gone = static_cast<char*>(pool->allocate(6 << 20));
    ASSERT_NE(gone, nullptr);
    std::memset(gone, 6, 6 << 20);
    pool->release(gone);
    const std::uint64_t before = pool->stats().common.resident_bytes;
    EXPECT_LE(before, pool->geometry().data_bytes);
    const std::size_t given = pool->trim();
    EXPECT_GE(given, std::size_t{3} << 20);
    EXPECT_EQ(pool->stats().common.returned_bytes, given);
    EXPECT_LE(pool->stats().common.resident_bytes, before - given + 4 * test::kernel_page());
    EXPECT_TRUE(test::all_are(5, kept, 20'000));
    // Whoever locks all memory of the process leaves that alone.
    os::AddressRange absent[8];
    const std::size_t count = SharedPool::absent_ranges(absent, 8);
    EXPECT_GE(count, 1U);
    std::size_t away = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto* const begin = reinterpret_cast<const char*>(absent[i].begin);
      const auto block = reinterpret_cast<std::uintptr_t>(kept);
      EXPECT_TRUE(pool->contains(begin) && (block + 20'000 <= absent[i].begin || block >= absent[i].end));
      away += absent[i].end - absent[i].begin;
    }
    EXPECT_GE(away, given / (2 << 20) * (2 << 20) - (2 << 20));
    EXPECT_LE(away, pool->geometry().data_bytes - pool->stats().common.resident_bytes);
    pool->release(kept);
    expect_empty(pool);
    let_go(pool);
  }
}

// Without looking at each of its pages, whatever of it was touched, and wherever in the kernel's last page it ends.
TEST(SharedPool, WhatIsResidentIsWhatItsPagesSay) {
  for (const std::uint64_t size : {std::uint64_t{64} << 20, (std::uint64_t{9} << 20) + 4096}) {
    Options options;
    options.size = size;
    options.prefault = false;
    os::SharedMemory& os = test::machine_shared_memory();
    SharedPool* const pool = SharedPool::create(options, os).pool;
    ASSERT_NE(pool, nullptr);
    const auto by_pages = [&] {
      std::size_t bytes = 0;
      EXPECT_EQ(os.resident(pool->data(), pool->geometry().data_bytes, &bytes), 0);
      return bytes;
    };
    EXPECT_EQ(pool->stats().common.resident_bytes, by_pages());
    auto* const block = static_cast<char*>(pool->allocate(5'000'000));
    std::memset(block, 1, 5'000'000);
    EXPECT_GE(by_pages(), std::size_t{5'000'000});
    EXPECT_EQ(pool->stats().common.resident_bytes, by_pages());
    char* const data = pool->data();
    data[pool->geometry().data_bytes - 1] = 1;
    EXPECT_EQ(pool->stats().common.resident_bytes, by_pages());
    std::memset(data, 1, pool->geometry().data_bytes);
    EXPECT_EQ(pool->stats().common.resident_bytes, pool->geometry().data_bytes);
    // And where a program has closed all descriptors.
    const int kept = ::dup(pool->fd());
    ASSERT_EQ(::close(pool->fd()), 0);
    EXPECT_EQ(pool->stats().common.resident_bytes, pool->geometry().data_bytes);
    ASSERT_EQ(::dup2(kept, pool->fd()), pool->fd());
    ASSERT_EQ(::close(kept), 0);
    pool->release(block);
    let_go(pool);
  }
}

// A kernel that has a transparent huge page at the end of the file, with so much past it.
class HugeTail final : public test::LargePagesShared {
 public:
  std::size_t tail = 0;

  int describe(int fd, os::SegmentFile* out) noexcept override {
    const int error = LargePagesShared::describe(fd, out);
    out->held += tail;
    return error;
  }
  int held_past_end(int fd, std::size_t bytes, std::size_t* out) noexcept override {
    const int error = refuses ? ENOMEM : LargePagesShared::held_past_end(fd, bytes, out);
    *out += tail;
    return error;
  }
  bool refuses = false;
};

TEST(SharedPool, WhatAHugePageHasPastTheEndIsNotResident) {
  HugeTail os;
  Options options;
  options.size = (std::uint64_t{9} << 20) + 4096;
  options.prefault = false;
  SharedPool* const pool = SharedPool::create(options, os).pool;
  ASSERT_NE(pool, nullptr);
  const auto by_pages = [&] {
    std::size_t bytes = 0;
    EXPECT_EQ(os.resident(pool->data(), pool->geometry().data_bytes, &bytes), 0);
    return bytes;
  };
  auto* const block = static_cast<char*>(pool->allocate(7 << 20));
  ASSERT_NE(block, nullptr);
  std::memset(block, 1, 7 << 20);
  pool->data()[pool->geometry().data_bytes - 1] = 1;
  os.tail = (std::size_t{2} << 20) - 8192;
  for (const bool refuses : {false, true}) {
    os.refuses = refuses;
    EXPECT_LT(by_pages(), pool->geometry().data_bytes);
    EXPECT_EQ(pool->stats().common.resident_bytes, by_pages());
  }
  os.refuses = false;
  std::memset(pool->data(), 1, pool->geometry().data_bytes);
  EXPECT_EQ(pool->stats().common.resident_bytes, pool->geometry().data_bytes);
  pool->release(block);
  EXPECT_GE(pool->trim(), std::size_t{3} << 20);
  EXPECT_EQ(pool->stats().common.resident_bytes, by_pages());
  let_go(pool);
}

TEST(SharedPool, ThreadsAtOnce) {
  SharedPool* pool = make_pool(8 << 20);
  std::atomic<int> damaged{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<std::pair<unsigned char*, std::size_t>> held;
      for (int turn = 0; turn < 20000; ++turn) {
        if (held.size() < 20 && random() % 2 == 0) {
          const std::size_t size = 1 + random() % (1U << random() % 18);
          auto* const block = static_cast<unsigned char*>(pool->allocate(size));
          if (block == nullptr) continue;
          block[0] = block[size - 1] = static_cast<unsigned char>(t + 1);
          held.emplace_back(block, size);
        } else if (!held.empty()) {
          const auto [block, size] = held.back();
          held.pop_back();
          damaged += block[0] != t + 1 || block[size - 1] != t + 1;
          BlockRef ref;
          BlockRange range;
          if (turn % 5 == 0 && pool->share(block, &ref, &range) == 0) pool->drop(ref, pool->lineage());
          pool->release(block);
        }
      }
      for (const auto& [block, size] : held) pool->release(block);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(damaged, 0);
  expect_empty(pool);
  let_go(pool);
}

// Sharing across unrelated mappings: the child opens the segment anew, as a spawned process does.
SharedPool* reopen_in_child(const SharedPool* parents) {
  // The inherited object would be found; a process that was spawned has none. Exec is not needed for that.
  const Address address = parents->address();
  const CreateResult result = SharedPool::attach_address(address, Options{}, test::machine_shared_memory());
  return result.pool;
}

TEST(SharedPool, WhoeverDropsLastFreesIt) {
  SharedPool* pool = make_pool(4 << 20);
  int done[2];
  ASSERT_EQ(::pipe(done), 0);
  char* const block = static_cast<char*>(pool->allocate(100000));
  std::strcpy(block, "from the parent");
  BlockRef ref;
  BlockRange range;
  Tenancy me;
  ASSERT_EQ(pool->share(block, &ref, &range), 0);
  ASSERT_EQ(pool->depart(ref, &me), 0);
  const pid_t child = start_child([&] {
    SharedPool* mine = reopen_in_child(pool);
    BlockRange there;
    if (mine == nullptr || mine->arrive(ref, me, &there) != 0) return 1;
    char byte = 0;
    if (::read(done[0], &byte, 1) != 1) return 2;  // the parent has let go
    if (std::strcmp(mine->data() + there.offset, "from the parent") != 0) return 3;
    mine->drop(ref, mine->lineage());
    return 0;
  });
  pool->drop(ref, pool->lineage());
  pool->release(block);
  EXPECT_EQ(pool->stats().common.current_count, 1U);
  ASSERT_EQ(::write(done[1], "x", 1), 1);
  EXPECT_EQ(end_of(child), 0);
  expect_empty(pool);
  EXPECT_EQ(pool->hold(ref, &range), ESTALE);
  let_go(pool);
}

TEST(SharedPool, TheMakerMayEndFirst) {
  SharedPool* pool = make_pool(4 << 20);
  int sent[2];
  ASSERT_EQ(::pipe(sent), 0);
  const int status = in_child([&] {
    char* const block = static_cast<char*>(pool->allocate(50000));
    std::strcpy(block, "a will");
    struct { BlockRef ref; Tenancy me; } message;
    BlockRange range;
    if (pool->share(block, &message.ref, &range) != 0 || pool->depart(message.ref, &message.me) != 0) return 1;
    if (::write(sent[1], &message, sizeof message) != sizeof message) return 2;
    ::raise(SIGKILL);
    return 0;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(pool->recover());
  struct { BlockRef ref; Tenancy me; } message;
  ASSERT_EQ(::read(sent[0], &message, sizeof message), static_cast<ssize_t>(sizeof message));
  BlockRange range;
  ASSERT_EQ(pool->arrive(message.ref, message.me, &range), 0);
  EXPECT_STREQ(pool->data() + range.offset, "a will");
  EXPECT_EQ(pool->stats().common.current_count, 1U);
  pool->drop(message.ref, pool->lineage());
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, WhatLivedAtAForkKeepsItsContentsInTheChild) {
  SharedPool* pool = make_pool(2 << 20);
  std::vector<char*> blocks;
  for (const std::size_t size : {100UL, 100UL, 6000UL, 300000UL}) {
    blocks.push_back(static_cast<char*>(pool->allocate(size)));
    std::memset(blocks.back(), 'p', size);
  }
  BlockRef ref;
  BlockRange range;
  ASSERT_EQ(pool->share(blocks[3], &ref, &range), 0);
  int go[2];
  int ready[2];
  ASSERT_EQ(::pipe(go), 0);
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = start_child([&] {
    char byte = 0;
    if (::read(go[0], &byte, 1) != 1) return 1;
    for (const char* block : blocks) {
      for (int i = 0; i < 100; ++i) {
        if (block[i] != 'p') return 2;
      }
    }
    // Its own frees of them change nothing, and it has memory of its own.
    for (char* block : blocks) pool->release(block);
    void* const own = pool->allocate(1000);
    if (own == nullptr) return 3;
    if (pool->stats().common.misuses != 0) return 4;
    if (::write(ready[1], "x", 1) != 1 || ::read(go[0], &byte, 1) != 1) return 5;
    return blocks[2][5] == 'p' ? 0 : 6;
  });
  pool->drop(ref, pool->lineage());
  for (char* block : blocks) pool->release(block);
  // Everything the parent can get, overwritten.
  std::vector<void*> fill;
  for (const std::size_t size : {300000UL, 6000UL, 100UL}) {
    while (void* block = pool->allocate(size)) {
      std::memset(block, 'x', size);
      fill.push_back(block);
    }
  }
  for (void* block : fill) pool->release(block);
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  ::close(ready[1]);
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  EXPECT_EQ(end_of(child), 0);
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, AGrandchildKeepsWhatItInheritedThroughADeadChild) {
  SharedPool* pool = make_pool(1 << 20);
  char* const block = static_cast<char*>(pool->allocate(500000));
  std::memset(block, 'g', 500000);
  int go[2];
  int answer[2];
  ASSERT_EQ(::pipe(go), 0);
  ASSERT_EQ(::pipe(answer), 0);
  const int status = in_child([&] {
    if (::fork() == 0) {
      test::end_if_hung(20);
      char byte = 0;
      (void)!::read(go[0], &byte, 1);
      byte = block[499999];
      (void)!::write(answer[1], &byte, 1);
      ::_exit(0);
    }
    return 0;
  });
  ASSERT_EQ(status, 0);
  pool->release(block);
  ASSERT_TRUE(pool->recover());
  EXPECT_EQ(pool->allocate(600000), nullptr);
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  char byte = 0;
  ASSERT_EQ(::read(answer[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'g');
  for (int tries = 0; tries < 100 && pool->stats().processes > 1; ++tries) ::usleep(10000);
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, NamesAreFoundRefusedWhileInUseAndTakenOverFromTheDead) {
  const std::string name = own_name("pool");
  const int status = in_child([&] {
    SharedPool* pool = make_pool(1 << 20, name.c_str());
    if (pool == nullptr) return 1;
    ::raise(SIGKILL);
    return 0;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(has_name(name));
  SharedPool* pool = make_pool(2 << 20, name.c_str());
  ASSERT_NE(pool, nullptr);
  EXPECT_EQ(pool->geometry().data_bytes, std::size_t{2} << 20);
  Options again;
  again.size = 1 << 20;
  std::strcpy(again.name, name.c_str());
  EXPECT_EQ(in_child([&] { return SharedPool::create(again, test::machine_shared_memory()).error; }), EEXIST << 8);
  EXPECT_EQ(in_child([&] {
    Options options;
    std::strcpy(options.name, name.c_str());
    return SharedPool::attach_name(options, test::machine_shared_memory()).pool == pool ? 0 : 1;  // open already
  }), 0);
  EXPECT_EQ(pool->unlink(), 0);
  EXPECT_EQ(pool->unlink(), ENOENT);
  EXPECT_FALSE(has_name(name));
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPool, LeftOversOfTheDeadAreSweptAndThoseOfOrderlyEndsAreNot) {
  const std::string dead = own_name("dead");
  const std::string orderly = own_name("orderly");
  (void)in_child([&] {
    (void)make_pool(1 << 20, dead.c_str());
    ::raise(SIGKILL);
    return 0;
  });
  (void)in_child([&] {
    SharedPool* pool = make_pool(1 << 20, orderly.c_str());
    let_go(pool);
    return 0;
  });
  EXPECT_TRUE(has_name(orderly));
  const std::string third = own_name("third");
  SharedPool* pool = make_pool(1 << 20, third.c_str());
  EXPECT_FALSE(has_name(dead));
  EXPECT_TRUE(has_name(orderly));
  EXPECT_EQ(pool->unlink(), 0);
  let_go(pool);
  Options options;
  std::strcpy(options.name, orderly.c_str());
  const CreateResult found = SharedPool::attach_name(options, test::machine_shared_memory());
  ASSERT_NE(found.pool, nullptr);
  EXPECT_EQ(found.pool->unlink(), 0);
  let_go(found.pool);
}

TEST(SharedPool, TheLastUserOfADeadCreatorsPoolRemovesTheName) {
  const std::string name = own_name("abandoned");
  int ready[2];
  int go[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(go), 0);
  const pid_t creator = start_child([&] {
    (void)make_pool(1 << 20, name.c_str());
    char byte = 0;
    (void)!::write(ready[1], "x", 1);
    (void)!::read(go[0], &byte, 1);
    ::raise(SIGKILL);
    return 0;
  });
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  Options options;
  std::strcpy(options.name, name.c_str());
  const CreateResult found = SharedPool::attach_name(options, test::machine_shared_memory());
  ASSERT_NE(found.pool, nullptr);
  EXPECT_EQ(found.pool->stats().processes, 2U);
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  (void)end_of(creator);
  EXPECT_TRUE(has_name(name));
  let_go(found.pool);
  EXPECT_FALSE(has_name(name));
}

TEST(SharedPool, ClosedMeansNothingNewAndNothingLost) {
  SharedPool* pool = make_pool(1 << 20);
  char* const block = static_cast<char*>(pool->allocate(1000));
  pool->close();
  EXPECT_TRUE(pool->closed());
  EXPECT_EQ(pool->allocate(1000), nullptr);
  std::memset(block, 1, 1000);
  pool->release(block);
  pool->drop_reference();
}

TEST(SharedPool, FrozenMapping) {
  SharedPool* pool = make_pool(1 << 20);
  char* const block = static_cast<char*>(pool->allocate(1000));
  std::strcpy(block, "seen from both sides");
  int error = 0;
  const char* const data = pool->read_only_data(&error);
  ASSERT_NE(data, nullptr) << error;
  const char* const same = data + (block - pool->data());
  EXPECT_STREQ(same, block);
  EXPECT_TRUE(pool->contains(same));
  EXPECT_EQ(in_child([&] {
    ::signal(SIGSEGV, SIG_DFL);  // also where a sanitizer has its own
    *const_cast<volatile char*>(same) = 'x';
    return 0;
  }) & 0x7f, SIGSEGV);
  pool->release(block);
  let_go(pool);
}

}  // namespace
}  // namespace rtpool::shared
