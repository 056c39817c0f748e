// The shared pool on a segment that somebody damaged: attaching, and everything that can be done after it.
//
// A valid segment with live, shared and travelling blocks is made once. Each input gets a copy, damages it (header with
// or without a right check sum, size of the file, process slots, granule words, records), attaches, and goes on damaging
// between operations, while the kernel refuses the calls the input names, time passes and processes live or die as the
// input says. What must hold: an error or a result, in bounded time; no address outside of the data; no crash.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "shared/shared_pool.hpp"
#include "support.hpp"

namespace rtpool::fuzz {
namespace {

using namespace shared;

// The kernel, but for refusals, time and who lives.
class Kernel final : public os::SharedMemory {
 public:
  int fail_at = -1;
  int calls = 0;
  std::uint64_t passed = 0;
  std::uint32_t living = ~0U;  // by bits of the pid
  std::int32_t pid = 4242;

  std::size_t page_size() noexcept override { return real().page_size(); }
  int create_nameless(const os::SegmentId& id, std::size_t bytes, std::size_t page, int* fd) noexcept override {
    return refused() ? ENOMEM : real().create_nameless(id, bytes, page, fd);
  }
  int create_named(std::size_t, int*) noexcept override { return ENOENT; }
  int publish(int, const char*) noexcept override { return ENOENT; }
  int open_named(const char*, int*) noexcept override { return ENOENT; }
  int unlink_named(const char*) noexcept override { return ENOENT; }
  int for_each_name(bool (*)(void*, const char*), void*) noexcept override { return 0; }
  int open_of_process(const os::SegmentId&, std::int32_t, int, bool (*)(void*, int), void*, int*) noexcept override { return ENOENT; }
  int set_aside(int fd, std::size_t bytes) noexcept override { return refused() ? ENOSPC : real().set_aside(fd, bytes); }
  int try_lock_file(int) noexcept override { return 0; }
  int duplicate(int fd, int* out) noexcept override { return refused() ? EMFILE : real().duplicate(fd, out); }
  int describe(int fd, os::SegmentFile* out) noexcept override { return refused() ? EBADF : real().describe(fd, out); }
  int held_past_end(int fd, std::size_t bytes, std::size_t* out) noexcept override {
    return refused() ? ENOMEM : real().held_past_end(fd, bytes, out);
  }
  void close(int fd) noexcept override { real().close(fd); }
  int map(int fd, std::size_t bytes, std::size_t page, bool writable, void** out) noexcept override {
    if (bytes > (std::size_t{1} << 30)) return ENOMEM;
    return refused() ? ENOMEM : real().map(fd, bytes, page, writable, out);
  }
  int unmap(void* address, std::size_t bytes) noexcept override { return real().unmap(address, bytes); }
  int prefault(void*, std::size_t, bool) noexcept override { return refused() ? EFAULT : 0; }
  int lock(void*, std::size_t) noexcept override { return refused() ? EPERM : 0; }
  int advise_huge(void*, std::size_t) noexcept override { return refused() ? EINVAL : 0; }
  int discard(int fd, std::size_t offset, std::size_t bytes) noexcept override {
    return refused() ? ENOMEM : real().discard(fd, offset, bytes);
  }
  int resident(const void* address, std::size_t bytes, std::size_t* out) noexcept override {
    return refused() ? ENOMEM : real().resident(address, bytes, out);
  }
  char transparent_huge_pages() noexcept override { return 'm'; }
  std::size_t lockable_memory() noexcept override { return 0; }
  std::uint32_t user() noexcept override { return real().user(); }
  std::int32_t process_id() noexcept override { return pid; }
  int identify(std::int32_t of, os::ProcessIdentity* out) noexcept override {
    if (refused()) return ENOENT;
    *out = {static_cast<std::uint64_t>(of) * 3, 7, 1};
    return 0;
  }
  os::Liveness liveness(std::int32_t of, const os::ProcessIdentity& identity) noexcept override {
    if (of == pid) return os::Liveness::alive;
    if (identity.namespace_ > 1) return os::Liveness::unknown;
    return (living >> (static_cast<std::uint32_t>(of) % 32) & 1) != 0 ? os::Liveness::alive : os::Liveness::dead;
  }
  std::uint64_t seconds() noexcept override { return 1'000'000 + passed; }
  int random(void* out, std::size_t bytes) noexcept override { return refused() ? EIO : real().random(out, bytes); }

 private:
  static os::SharedMemory& real() noexcept { return os::shared_memory(); }
  bool refused() noexcept {
    if (calls++ != fail_at) return false;
    ++counts().faults;
    return true;
  }
};

constexpr std::size_t k_size = std::size_t{768} << 10;

// libc's, but for sizes that sanitizers take for a defect of the caller.
constexpr std::size_t k_most_fallback = std::size_t{1} << 24;
constexpr pool::Fallback k_fallback{
    [](std::size_t size) -> void* { return size > k_most_fallback ? nullptr : std::malloc(size); },
    [](std::size_t count, std::size_t size) -> void* { return size > k_most_fallback ? nullptr : std::calloc(count, size); },
    [](void* block, std::size_t size) -> void* { return size > k_most_fallback ? nullptr : std::realloc(block, size); },
    [](void* block) { std::free(block); }};

using Bytes = std::vector<unsigned char>;

struct Template {
  Bytes bytes;
  Geometry geometry;
};

// A sealed memory file with these contents.
int file_of(const unsigned char* bytes, std::size_t size) {
  int fd = -1;
  FUZZ_EXPECT(os::shared_memory().create_nameless(os::SegmentId{}, size, k_page, &fd) == 0);
  FUZZ_EXPECT(::pwrite(fd, bytes, size, 0) == static_cast<ssize_t>(size));
  return fd;
}

// A process works in the pool; what it leaves in the segment if it dies then is copied.
void work_and_die(SharedPool& pool, Template* out) {
  for (unsigned i = 0; i < 12; ++i) {
    void* const block = pool.allocate(i % 3 == 0 ? 20'000 : 100 * i + 1);
    BlockRef ref;
    BlockRange range;
    Tenancy sender;
    FUZZ_EXPECT(block != nullptr);
    if (i % 2 == 0) FUZZ_EXPECT(pool.share(block, &ref, &range) == 0);
    if (i % 4 == 0) FUZZ_EXPECT(pool.depart(ref, &sender) == 0);
    if (i % 5 == 0) pool.release(block);
  }
  out->geometry = pool.geometry();
  out->bytes.assign(pool.segment().base(), pool.segment().base() + pool.segment().mapped_bytes());
  pool.close();
  pool.drop_reference();
}

// A segment that two processes use.
const Template& valid_segment() {
  static const Template made = [] {
    Kernel kernel;
    Template result;
    Options options;
    options.size = k_size;
    options.prefault = false;
    kernel.pid = 11;
    const CreateResult first = SharedPool::create(options, kernel);
    FUZZ_EXPECT(first.pool != nullptr);
    work_and_die(*first.pool, &result);
    kernel.pid = 12;
    const CreateResult second = SharedPool::attach_fd(file_of(result.bytes.data(), result.bytes.size()), options, kernel);
    FUZZ_EXPECT(second.pool != nullptr);
    work_and_die(*second.pool, &result);
    return result;
  }();
  return made;
}

std::uint64_t check_sum(const MadeHeader& header) noexcept {
  std::uint64_t sum = 0xcbf29ce484222325;
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&header);
  for (std::size_t i = 0; i < offsetof(MadeHeader, check_sum); ++i) sum = (sum ^ bytes[i]) * 0x100000001b3;
  return sum;
}

struct Mine {
  char* block;
  std::size_t size;
};

class Game {
 public:
  explicit Game(Input input) : input_(input) {}

  void play() {
    const Template& valid = valid_segment();
    bytes_ = valid.bytes;
    geometry_ = valid.geometry;
    Options options;
    const unsigned flags = input_.byte();
    options.fall_back = (flags & 1) != 0;
    options.strict = (flags & 2) != 0;
    options.lock = (flags & 4) != 0;
    kernel_.living = (flags & 8) != 0 ? ~0U : 0;
    damage_file(options);
    if (pool_ == nullptr) return;
    for_each_step(input_, k_most_steps, [this] { act(); });
    end();
  }

 private:
  static constexpr unsigned k_most_steps = 120;
  static constexpr std::size_t k_most_blocks = 100;

  // --- damage ---

  std::uint64_t hostile_value(std::uint64_t there) {
    const unsigned kind = input_.byte();
    const Tenancy someone{input_.byte() % 4U, 1U + kind / 64};
    switch (kind % 10) {
      case 0: return there ^ std::uint64_t{1} << input_.byte() % 64;
      case 1: return 0;
      case 2: return ~std::uint64_t{0};
      case 3: return input_.byte();
      case 4: return input_.quad_word();
      case 5: return GranuleWord::head(someone, input_.word());
      case 6: return GranuleWord::head(someone, input_.byte() % 16) | GranuleWord::k_idle;
      case 7: return GranuleWord::head(someone, input_.byte() % 16) | GranuleWord::k_stealing;
      case 8: return StateWord::make(static_cast<RecordState>(input_.byte() % 6), input_.byte() % 3, 1 + input_.byte() % 3U);
      default: return LifeWord::make(static_cast<Life>(input_.byte() % 8), input_.byte() % 16, someone.generation);
    }
  }

  // One 64-bit word of the segment, by the part it lies in.
  void damage_word(unsigned char* base) {
    std::uint64_t offset = 0;
    const unsigned part = input_.byte();
    switch (part % 6) {
      case 0: offset = offsetof(Header, recovery) + input_.below(5) * 8; break;
      case 1: offset = geometry_.processes_offset + input_.below(6) * sizeof(ProcessSlot) + input_.below(16) * 8; break;
      case 2: offset = geometry_.granules_offset + input_.below(geometry_.granules) * 8; break;
      case 3:
      case 4: offset = geometry_.records_offset + input_.below(16) * sizeof(Record) + input_.below(16) * 8; break;
      default: offset = input_.double_word() % (geometry_.data_offset / 8) * 8;
    }
    // The part of the header that never changes has rules of its own while it is mapped: `check` says so, nothing reads it.
    auto* const word = reinterpret_cast<Word*>(base + offset);
    word->store(hostile_value(word->load()));
  }

  void damage_file(const Options& options) {
    for (unsigned left = input_.byte() % 16; left != 0; --left) damage_word(bytes_.data());
    auto* const header = reinterpret_cast<MadeHeader*>(bytes_.data());
    const unsigned how = input_.byte();
    std::size_t size = bytes_.size();
    if ((how & 1) != 0) bytes_[input_.word() % sizeof(MadeHeader)] ^= static_cast<unsigned char>(1 + input_.byte());
    if ((how & 2) != 0) header->data_bytes = (how & 4) != 0 ? input_.quad_word() : header->data_bytes + input_.word() - 2048;
    if ((how & 8) != 0) header->file_bytes += std::uint64_t{input_.byte()} << 12;
    if ((how & 16) != 0) header->page = static_cast<std::uint32_t>(1U << input_.byte() % 32);
    if ((how & 32) != 0) header->check_sum = check_sum(*header);
    if ((how & 64) != 0) size = input_.word() * std::size_t{16};
    if ((how & 128) != 0) kernel_.fail_at = input_.byte() % 16;
    bytes_.resize(std::max(size, bytes_.size()));
    const int fd = file_of(bytes_.data(), size == 0 ? 1 : size);
    int second = -1;
    FUZZ_EXPECT(os::shared_memory().duplicate(fd, &second) == 0);
    const CreateResult result = SharedPool::attach_fd(fd, options, kernel_, &k_fallback);
    pool_ = result.pool;
    FUZZ_EXPECT(pool_ != nullptr || result.error != 0);
    if (pool_ == nullptr) {
      os::shared_memory().close(second);
      return;
    }
    geometry_ = pool_->geometry();
    FUZZ_EXPECT(geometry_.file_bytes == size);
    void* view = nullptr;
    FUZZ_EXPECT(os::shared_memory().map(second, size, k_page, true, &view) == 0);
    os::shared_memory().close(second);
    view_ = static_cast<unsigned char*>(view);
  }

  // --- operations ---

  void act() {
    switch (input_.byte() % 18) {
      case 0:
      case 1:
      case 2: allocate(); break;
      case 3: free_one(); break;
      case 4: resize(); break;
      case 5: share(); break;
      case 6: hold(); break;
      case 7: drop(); break;
      case 8: travel(); break;
      case 9: (void)pool_->stats(); break;
      case 10: (void)pool_->check(); break;
      case 11: (void)(input_.byte() % 2 == 0 ? pool_->trim() : std::size_t{pool_->recover()}); break;
      case 12: (void)pool_->reclaim(input_.byte()); break;
      case 13: time_passes(); break;
      case 14: wrong_pointer(); break;
      case 15: {
        int error = 0;
        const char* const data = pool_->read_only_data(&error);
        FUZZ_EXPECT(data != nullptr || error != 0);
        break;
      }
      default: damage_word(view_);
    }
  }

  void allocate() {
    if (blocks_.size() >= k_most_blocks) return;
    const std::size_t size = input_.request();
    const bool zeroed = input_.byte() % 4 == 0;
    auto* const block = static_cast<char*>(zeroed ? pool_->allocate_zeroed(size) : pool_->allocate(size));
    if (block == nullptr) return;
    remember(block, size == 0 ? 1 : size);
    if (zeroed) FUZZ_EXPECT(all_zero(block, size));
  }

  void remember(char* block, std::size_t size) {
    if (pool_->contains(block)) {
      FUZZ_EXPECT(block >= pool_->data() && size <= geometry_.data_bytes);
      FUZZ_EXPECT(static_cast<std::size_t>(block - pool_->data()) <= geometry_.data_bytes - size);
      FUZZ_EXPECT(pool_->usable_size(block) >= size);
    }
    blocks_.push_back({block, size});
  }

  Mine take_one() {
    const std::size_t index = input_.below(blocks_.size());
    const Mine mine = blocks_[index];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(index));
    return mine;
  }

  void free_one() {
    if (!blocks_.empty()) pool_->release(take_one().block);
  }

  void resize() {
    if (blocks_.empty()) return;
    const Mine mine = take_one();
    const std::size_t size = input_.request();
    auto* const block = static_cast<char*>(pool_->resize(mine.block, size));
    if (block == nullptr) return remember(mine.block, mine.size);
    remember(block, size == 0 ? 1 : size);
  }

  void expect_inside(const BlockRange& range) {
    FUZZ_EXPECT(range.offset <= geometry_.data_bytes && range.bytes <= geometry_.data_bytes - range.offset);
  }

  void share() {
    if (blocks_.empty()) return;
    const Mine& mine = blocks_[input_.below(blocks_.size())];
    BlockRef ref;
    BlockRange range;
    if (pool_->share(mine.block + input_.word() % mine.size, &ref, &range) != 0) return;
    expect_inside(range);
    refs_.push_back(ref);
  }

  BlockRef some_ref() {
    if (!refs_.empty() && input_.byte() % 2 == 0) return refs_[input_.below(refs_.size())];
    return {input_.byte() % 4 == 0 ? input_.double_word() : static_cast<std::uint32_t>(input_.below(16)), 1 + input_.byte() % 3U};
  }

  void hold() {
    const BlockRef ref = some_ref();
    BlockRange range;
    if (pool_->hold(ref, &range) != 0) return;
    expect_inside(range);
    refs_.push_back(ref);
  }

  void drop() {
    if (refs_.empty()) return;
    const std::size_t index = input_.below(refs_.size());
    pool_->drop(refs_[index], pool_->lineage());
    refs_.erase(refs_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  void travel() {
    Tenancy sender{input_.byte() % 4U, 1U};
    if (input_.byte() % 2 == 0) {
      (void)pool_->depart(some_ref(), &sender);
      return;
    }
    const BlockRef ref = some_ref();
    BlockRange range;
    if (input_.byte() == 255) sender = Tenancy::of(input_.quad_word());
    if (pool_->arrive(ref, sender, &range) != 0) return;
    expect_inside(range);
    refs_.push_back(ref);
  }

  void time_passes() {
    const unsigned what = input_.byte();
    if (what % 2 == 0) kernel_.passed += what;
    else kernel_.living ^= 1U << what / 2 % 32;
    if (what > 240) kernel_.fail_at = kernel_.calls + what % 4;
  }

  void wrong_pointer() {
    const unsigned kind = input_.byte();
    char* const inside = pool_->data() + input_.double_word() % geometry_.data_bytes;
    char* const pointer = kind % 4 != 0 ? inside : reinterpret_cast<char*>(pool_->segment().base() + input_.word());
    for (const Mine& mine : blocks_) {
      if (mine.block == pointer) return;
    }
    // With a fallback allocator every address outside of the pool is taken for one of its blocks.
    if (!pool_->contains(pointer)) return;
    if (kind < 128) pool_->release(pointer);
    else FUZZ_EXPECT(pool_->resize(pointer, 100) == nullptr);
    FUZZ_EXPECT(pool_->usable_size(pointer) == 0);
    ++counts().misuses;
  }

  void end() {
    while (!blocks_.empty()) {
      pool_->release(blocks_.back().block);
      blocks_.pop_back();
    }
    for (const BlockRef& ref : refs_) pool_->drop(ref, pool_->lineage());
    (void)pool_->check();
    (void)pool_->trim();
    pool_->close();
    void* const after = pool_->allocate(1);
    FUZZ_EXPECT(after == nullptr || (pool_->options().fall_back && !pool_->contains(after)));
    pool_->release(after);
    const std::size_t mapped = pool_->segment().mapped_bytes();
    pool_->drop_reference();
    (void)os::shared_memory().unmap(view_, mapped);
  }

  Input input_;
  Kernel kernel_;
  Bytes bytes_;
  Geometry geometry_;
  SharedPool* pool_ = nullptr;
  unsigned char* view_ = nullptr;
  std::vector<Mine> blocks_;
  std::vector<BlockRef> refs_;
};

}  // namespace

void play(Input input) { Game(input).play(); }

}  // namespace rtpool::fuzz
