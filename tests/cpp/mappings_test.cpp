// Promises of os/mappings.hpp: each kind of memory made on purpose and named right, live and from an earlier snapshot.
#include "os/mappings.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/sanitizers.hpp"

namespace rtpool::os {
namespace {

std::uintptr_t at(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

int g_variable = 1;
char g_zeros[100'000];
const char g_table[] = "read only";

// Whether the linker put it into one segment with code, as it does on Arm.
bool is_beside_code(const void* constant) {
  struct Asked {
    std::uintptr_t at;
    bool beside;
  } asked{at(constant), false};
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* context) {
        auto* const about = static_cast<Asked*>(context);
        for (unsigned i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD || about->at - info->dlpi_addr - segment.p_vaddr >= segment.p_memsz) continue;
          about->beside = (segment.p_flags & PF_X) != 0;
        }
        return 0;
      },
      &asked);
  return asked.beside;
}

class MappingsTest : public ::testing::Test {
 protected:
  Place now(const void* address) {
    Mappings mappings;
    EXPECT_EQ(mappings.take(), 0);
    return mappings.find(at(address), true);
  }
};

TEST_F(MappingsTest, TheProgramsOwnCodeAndData) {
  const Place code = find_loaded(at(reinterpret_cast<const void*>(&find_loaded)));
  EXPECT_EQ(code.region, Region::code);
  EXPECT_NE(std::string(code.name).find("_test"), std::string::npos) << code.name;
  EXPECT_EQ(find_loaded(at(&g_variable)).region, Region::data);
  EXPECT_EQ(find_loaded(at(&g_zeros[50'000])).region, Region::data);
  EXPECT_EQ(find_loaded(at(g_table)).region, is_beside_code(g_table) ? Region::code : Region::data);
  int local = 0;
  EXPECT_EQ(find_loaded(at(&local)).region, Region::nothing);
}

TEST_F(MappingsTest, ALibrarysCode) {
  const Place code = find_loaded(at(reinterpret_cast<const void*>(&::malloc_usable_size)));
  EXPECT_EQ(code.region, Region::code);
  EXPECT_NE(std::string(code.name).find(".so"), std::string::npos) << code.name;
}

TEST_F(MappingsTest, StacksOfThisThreadAndOfAnotherOne) {
  int local = 0;
  EXPECT_EQ(now(&local).region, Region::stack);
  std::atomic<const void*> theirs{nullptr};
  std::atomic<bool> leave{false};
  std::thread other([&] {
    char mine[64] = {};
    theirs.store(mine);
    theirs.notify_all();
    leave.wait(false);
  });
  theirs.wait(nullptr);
  Place place;
  // Its stack pointer is known once it waits.
  while ((place = now(theirs.load())).region != Region::stack) ::sched_yield();
  EXPECT_NE(place.thread, 0);
  EXPECT_NE(place.thread, ::gettid());
  leave.store(true);
  leave.notify_all();
  other.join();
  std::thread third([&] {
    int mine = 0;
    const Place own = now(&mine);
    EXPECT_EQ(own.region, Region::stack);
    EXPECT_EQ(own.thread, ::gettid());
  });
  third.join();
}

#if defined(__GLIBC__) && !defined(RTPOOL_SANITIZED)
TEST_F(MappingsTest, LibcsHeapsAndMappedBlocks) {
  void* const small = std::calloc(1, 1000);
  Place place = now(small);
  EXPECT_EQ(place.region, Region::libc_heap);
  EXPECT_TRUE(place.whole_heap);
  void* const first = std::malloc(5 << 20);
  void* const second = std::malloc(3 << 20);
  EXPECT_EQ(now(static_cast<char*>(first) + (4 << 20)).region, Region::libc_heap);
  EXPECT_EQ(now(static_cast<char*>(second) + (2 << 20)).region, Region::libc_heap);
  std::free(small);
  std::free(first);
  std::free(second);
  std::thread other([&] {
    void* const theirs = std::calloc(1, 1000);
    const Place there = now(theirs);
    EXPECT_EQ(there.region, Region::libc_heap);
    EXPECT_FALSE(there.whole_heap);
    std::free(theirs);
  });
  other.join();
}
#endif

#if !defined(__GLIBC__)
TEST_F(MappingsTest, LibcsGroupsOfBlocks) {
  void* const small = std::malloc(1000);
  void* const first = std::malloc(5 << 20);
  void* const second = std::malloc(3 << 20);
  EXPECT_EQ(now(small).region, Region::libc_heap);
  EXPECT_EQ(now(static_cast<char*>(first) + (4 << 20)).region, Region::libc_heap);
  EXPECT_EQ(now(static_cast<char*>(second) + (2 << 20)).region, Region::libc_heap);
  std::free(small);
  std::free(first);
  std::free(second);
}
#endif

// As they look in musl, and with whatever libc: what lies beside them in one mapping is not theirs.
TEST_F(MappingsTest, GroupsOfBlocksAmongOtherMemory) {
  constexpr std::size_t k_page = 4096;
  constexpr std::size_t k_pages = 700;  // more than are looked at in one call
  auto* const room = static_cast<std::uintptr_t*>(
      ::mmap(nullptr, k_pages * k_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(room, MAP_FAILED);
  std::uintptr_t word = 0;
  if (!peek(at(room), &word, sizeof word)) GTEST_SKIP() << "process_vm_readv is not permitted";
  const auto page = [room](std::size_t number) { return room + number * (k_page / sizeof *room); };
  std::uintptr_t of_two[5] = {0, 0, at(page(3)), 0, std::uintptr_t{2} << 12};
  std::uintptr_t of_many[5] = {0, 0, at(page(300)), 0, std::uintptr_t{350} << 12};
  *page(3) = at(of_two);
  *page(300) = at(of_many);
  *page(660) = at(of_two);  // a copy of a group's first word
  *page(661) = 8;           // no address
  const std::uintptr_t begin = at(room);
  const std::uintptr_t end = begin + k_pages * k_page;
  const auto held = [&](MuslBlocks& blocks, std::size_t number) { return blocks.hold(begin, end, at(page(number)) + 100); };
  MuslBlocks blocks;
  for (const std::size_t number : {2, 3, 4, 5, 299, 300, 649, 650, 660, 661, 699}) {
    const bool wanted = (number >= 3 && number < 5) || (number >= 300 && number < 650);
    EXPECT_EQ(held(blocks, number), wanted) << number;
    MuslBlocks anew;
    EXPECT_EQ(held(anew, number), wanted) << number;
  }
  EXPECT_TRUE(held(blocks, 4)) << "back again";
  EXPECT_FALSE(held(blocks, 2));
  ::munmap(room, k_pages * k_page);
}

TEST_F(MappingsTest, FilesSharedMemoryAndNameless) {
  const long page = ::sysconf(_SC_PAGESIZE);
  const auto bytes = static_cast<std::size_t>(page);
  char path[] = "/tmp/rtpool-mappings-XXXXXX";
  const int file = ::mkstemp(path);
  ASSERT_GE(file, 0);
  ASSERT_EQ(::ftruncate(file, page), 0);
  void* const view = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  EXPECT_EQ(now(view).region, Region::file);
  EXPECT_STREQ(now(view).name, path);
  const int memory = ::memfd_create("rtpool-test", 0);
  ASSERT_EQ(::ftruncate(memory, page), 0);
  void* const shared = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  EXPECT_EQ(now(shared).region, Region::shared);
  void* const nameless = ::mmap(nullptr, 16 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(now(nameless).region, Region::anonymous);
  constexpr int k_set_vma = 0x53564d61;
  if (::prctl(k_set_vma, 0, nameless, 16 * bytes, "somebody's") == 0) {
    EXPECT_EQ(now(nameless).region, Region::anonymous);
    EXPECT_STREQ(now(nameless).name, "somebody's");
    ASSERT_EQ(::prctl(k_set_vma, 0, nameless, 16 * bytes, " glibc: malloc arena"), 0);
    EXPECT_EQ(now(nameless).region, Region::libc_heap);
  }
  Mappings before;
  ASSERT_EQ(before.take(), 0);
  ::munmap(view, bytes);
  ::munmap(shared, bytes);
  ::munmap(nameless, 16 * bytes);
  EXPECT_EQ(now(nameless).region, Region::nothing);
  // What lay there is told by the snapshot that was taken then.
  EXPECT_EQ(before.find(at(view), false).region, Region::file);
  EXPECT_EQ(before.find(at(shared), false).region, Region::shared);
  ::close(file);
  ::close(memory);
  ::unlink(path);
}

TEST_F(MappingsTest, NothingAtAll) {
  Mappings mappings;
  EXPECT_FALSE(mappings.taken());
  EXPECT_EQ(mappings.find(0x1000, true).region, Region::nothing);
  ASSERT_EQ(mappings.take(), 0);
  EXPECT_TRUE(mappings.taken());
  EXPECT_EQ(mappings.find(0, true).region, Region::nothing);
  EXPECT_EQ(mappings.find(1, true).region, Region::nothing);
  EXPECT_EQ(mappings.find(UINTPTR_MAX >> 1, true).region, Region::nothing);
}

TEST_F(MappingsTest, PeekNeverFaults) {
  std::uintptr_t word = 0;
  EXPECT_FALSE(peek(8, &word, sizeof word));
  const std::uintptr_t value = 42;
  if (!peek(at(&value), &word, sizeof word)) GTEST_SKIP() << "process_vm_readv is not permitted";
  EXPECT_EQ(word, 42U);
}

}  // namespace
}  // namespace rtpool::os
