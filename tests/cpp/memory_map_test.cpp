// The list of what is mapped: every mapping stands in it once, as what it is, whatever the length of its name.
#include "os/memory_map.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "os/kernel_pages.hpp"

namespace rtpool::os {
namespace {

std::uintptr_t number(const void* address) noexcept { return reinterpret_cast<std::uintptr_t>(address); }

TEST(MemoryMap, TellsRangesByAddressAndWhatTheyAre) {
  const std::size_t page = page_size();
  auto* const room = static_cast<char*>(::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(room, MAP_FAILED);
  ASSERT_EQ(::mprotect(room + page, page, PROT_NONE), 0);
  ASSERT_EQ(::mprotect(room + 2 * page, page, PROT_READ), 0);
  MemoryMap map;
  ASSERT_EQ(map.take(), 0);
  ASSERT_GT(map.count(), 3U);
  for (std::size_t i = 0; i < map.count(); ++i) {
    EXPECT_LT(map[i].begin, map[i].end);
    EXPECT_LE(i != 0 ? map[i - 1].end : 0, map[i].begin);
  }
  const MappedRange* found = map.find(number(room));
  ASSERT_NE(found, nullptr);
  EXPECT_TRUE(found->accessible && found->writable && found->is_private && !found->has_file);
  EXPECT_EQ(found->end, number(room) + page);
  found = map.find(number(room) + page);
  ASSERT_NE(found, nullptr);
  EXPECT_FALSE(found->accessible || found->writable);
  found = map.find(number(room) + 3 * page - 1);
  ASSERT_NE(found, nullptr);
  EXPECT_TRUE(found->accessible && !found->writable);
  EXPECT_EQ(map.find(1), nullptr);
  ::munmap(room, 4 * page);
}

TEST(MemoryMap, TellsFilesWhateverTheirNames) {
  std::string path = "/tmp/rtpool-map-XXXXXX";
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  const std::string folder = path + "/" + std::string(240, 'x');  // longer than what is read at once
  const std::string file = folder + "/" + std::string(200, '-');
  ASSERT_EQ(::mkdir(folder.c_str(), 0700), 0);
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(descriptor, 0);
  const std::size_t page = page_size();
  ASSERT_EQ(::ftruncate(descriptor, static_cast<off_t>(page)), 0);
  void* const shared = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  void* const own = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
  void* const nameless = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MemoryMap map;
  ASSERT_EQ(map.take(), 0);
  for (void* const address : {shared, own, nameless}) {
    const MappedRange* const found = map.find(number(address));
    ASSERT_NE(found, nullptr);
    EXPECT_TRUE(found->has_file && found->writable);
    EXPECT_EQ(found->is_private, address == own);
    ::munmap(address, page);
  }
  ASSERT_EQ(map.take(), 0);  // anew
  EXPECT_EQ(map.find(number(shared)), nullptr);
  ::close(descriptor);
  ::unlink(file.c_str());
  ::rmdir(folder.c_str());
  ::rmdir(path.c_str());
}

}  // namespace
}  // namespace rtpool::os
