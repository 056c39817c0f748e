// Making, finding, joining, leaving, naming.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include <pthread.h>
#include <time.h>

#include "os/libc_malloc.hpp"
#include "os/memory.hpp"
#include "os/segment_door.hpp"
#include "shared/registry.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::shared {
namespace {

constexpr pool::Fallback k_libc{std::malloc, std::calloc, std::realloc, std::free};

std::size_t page_of(pool::HugePages huge_pages) noexcept {
  switch (huge_pages) {
    case pool::HugePages::explicit_2mib: return std::size_t{2} << 20;
    case pool::HugePages::explicit_1gib: return std::size_t{1} << 30;
    default: return k_page;
  }
}

CreateResult failure(pool::Step step, int error, std::size_t asked, std::size_t got = 0) noexcept {
  CreateResult result;
  result.step = step;
  result.error = error;
  result.asked = asked;
  result.got = got;
  return result;
}

void add_degradation(pool::Effective* effective, pool::Step step, int error, std::size_t asked, std::size_t got) noexcept {
  if (effective->count < sizeof effective->degradations / sizeof effective->degradations[0]) {
    effective->degradations[effective->count++] = {step, error, asked, got};
  }
}

}  // namespace

SharedPool::SharedPool(const Segment& segment, const Options& options, const pool::Fallback* fallback) noexcept
    : segment_(segment),
      processes_(segment_),
      granules_(segment_),
      records_(segment_, processes_),
      recovery_(segment_, processes_, granules_, records_),
      options_(options),
      fallback_(fallback != nullptr ? *fallback : k_libc) {}

CreateResult SharedPool::create(const Options& options, os::SharedMemory& os, const pool::Fallback* fallback) noexcept {
  const bool named = options.name[0] != '\0';
  SegmentOptions wanted;
  wanted.size = options.size;
  wanted.page = page_of(options.huge_pages);
  wanted.name = options.name;
  wanted.advise_huge = options.huge_pages == pool::HugePages::transparent;
  wanted.prefault = options.prefault;
  Geometry geometry;
  if (!geometry_of(options.size, wanted.page, &geometry) || (named && !os::is_segment_name(options.name))) {
    return failure(pool::Step::arguments, EINVAL, options.size, k_largest_data);
  }
  // Touching more than there is would not fail: the kernel would end processes to find it.
  const std::size_t room = options.prefault ? os::memory().available_memory() : os::memory().physical_memory();
  if (room != 0 && wanted.page == k_page && geometry.file_bytes > room) {
    return failure(pool::Step::commit, ENOMEM, options.size, room);
  }
  int huge_error = 0;
  if (named && wanted.page > k_page) huge_error = ENOTSUP;  // /dev/shm has no explicit huge pages
  Segment segment;
  int error = huge_error != 0 ? huge_error : Segment::create(os, wanted, &segment);
  if (error != 0 && wanted.page > k_page) {
    if (options.strict) return failure(pool::Step::huge_pages, error, wanted.page);
    huge_error = error;
    wanted.page = k_page;
    error = Segment::create(os, wanted, &segment);
  }
  if (error != 0) {
    return failure(error == ENOMEM || error == ENOSPC ? pool::Step::prefault : pool::Step::reserve, error, options.size);
  }
  CreateResult result = finish(segment, options, fallback, true);
  if (result.pool != nullptr && huge_error != 0) {
    add_degradation(&result.pool->effective_, pool::Step::huge_pages, huge_error, page_of(options.huge_pages), 0);
  }
  return result;
}

CreateResult SharedPool::attach_name(const Options& options, os::SharedMemory& os, const pool::Fallback* fallback) noexcept {
  int fd = -1;
  if (const int error = os.open_named(options.name, &fd); error != 0) return failure(pool::Step::reserve, error, 0);
  return attach_fd(fd, options, os, fallback);
}

CreateResult SharedPool::attach_address(const Address& address, const Options& options, os::SharedMemory& os,
                                        const pool::Fallback* fallback) noexcept {
  if (SharedPool* open = find(address.id); open != nullptr) {
    CreateResult result;
    open->openers_.fetch_add(1);
    result.pool = open;
    return result;
  }
  struct Sought {
    os::SharedMemory* os;
    const os::SegmentId* id;
  } sought{&os, &address.id};
  const auto is_it = [](void* context, int candidate) {
    const auto* const s = static_cast<const Sought*>(context);
    return Segment::is_in(*s->os, candidate, *s->id);
  };
  int fd = -1;
  if (const int error = os.open_of_process(address.id, address.pid, address.fd, is_it, &sought, &fd); error != 0) {
    return failure(pool::Step::reserve, error, 0);
  }
  CreateResult result = attach_fd(fd, options, os, fallback);
  if (result.pool != nullptr && !(result.pool->segment_.made().id == address.id)) {
    result.pool->close();
    result.pool->drop_reference();
    return failure(pool::Step::reserve, EBADMSG, 0);
  }
  return result;
}

CreateResult SharedPool::attach_fd(int fd, const Options& options, os::SharedMemory& os, const pool::Fallback* fallback) noexcept {
  Segment segment;
  if (const int error = Segment::open(os, fd, &segment); error != 0) return failure(pool::Step::reserve, error, 0);
  return finish(segment, options, fallback, false);
}

// Takes over the segment, also on failure.
CreateResult SharedPool::finish(Segment& segment, const Options& options, const pool::Fallback* fallback, bool created) noexcept {
  const CreateResult result = enter(segment, options, fallback, created);
  if (result.pool != nullptr) result.pool->join_recording();
  return result;
}

CreateResult SharedPool::enter(Segment& segment, const Options& options, const pool::Fallback* fallback, bool created) noexcept {
  const Registry::Lock registry;
  if (SharedPool* open = Registry::find(segment.made().id); open != nullptr) {
    segment.unmap();
    open->openers_.fetch_add(1);
    CreateResult result;
    result.pool = open;
    return result;
  }
  void* const room = std::malloc(sizeof(SharedPool));
  if (room == nullptr) {
    segment.unmap();
    return failure(pool::Step::metadata, ENOMEM, sizeof(SharedPool));
  }
  SharedPool* const pool = new (room) SharedPool(segment, options, fallback);
  CreateResult result = pool->begin(created);
  if (result.error != 0) {
    pool->destroy();
    return result;
  }
  Registry::add(pool);
  (void)os::offer_segment(segment.made().id, segment.fd());
  result.pool = pool;
  return result;
}

CreateResult SharedPool::begin(bool created) noexcept {
  os::SharedMemory& os = segment_.os();
  CreateResult result;
  settle(created, &result);
  if (result.error != 0) return result;
  int error = processes_.join(&tenancy_);
  if (error != 0) return failure(pool::Step::metadata, error, k_processes, k_processes);
  heap_ = Heap::make(segment_, granules_, tenancy_);
  holds_ = static_cast<Hold*>(std::calloc(geometry().records, sizeof(Hold)));
  if (heap_ == nullptr || holds_ == nullptr) return failure(pool::Step::metadata, ENOMEM, geometry().records * sizeof(Hold));
  if (options_.prefault) {
    heap_->prefault();
    os::touch_zeros(holds_, geometry().records * sizeof(Hold));
  }
  if (!created) {
    (void)recovery_.run(tenancy_);
    return result;
  }
  segment_.header().creator.store(tenancy_.packed());
  if (name()[0] == '\0') return result;
  sweep_names(os);
  error = segment_.publish();
  // Each turn that finds the name taken by the dead removes it; a living one ends the search.
  for (unsigned turn = 0; error == EEXIST && turn < 100 && take_over_name(os, name()); ++turn) error = segment_.publish();
  if (error != 0) return failure(pool::Step::reserve, error, options_.size);
  return result;
}

// Prefaulting, locking and huge pages of this process's mapping; what is not in force is written down.
void SharedPool::settle(bool created, CreateResult* result) noexcept {
  os::SharedMemory& os = segment_.os();
  const std::size_t bytes = segment_.mapped_bytes();
  effective_.size = effective_.limit = geometry().data_bytes;
  const auto refused = [&](pool::Step step, int error, std::size_t asked, std::size_t got) {
    if (options_.strict && result->error == 0) *result = failure(step, error, asked, got);
    add_degradation(&effective_, step, error, asked, got);
  };
  const bool explicit_pages = segment_.made().page > k_page;
  int advice = segment_.advice_error();
  if (!created && !explicit_pages && options_.huge_pages == pool::HugePages::transparent) {
    advice = os.advise_huge(segment_.base(), bytes);
  }
  const char mode = os.transparent_huge_pages();
  if (explicit_pages) {
    effective_.huge_pages = segment_.made().page == page_of(pool::HugePages::explicit_2mib) ? pool::HugePages::explicit_2mib
                                                                                           : pool::HugePages::explicit_1gib;
  } else if (options_.huge_pages == pool::HugePages::transparent && advice == 0 && mode != 'n' && mode != '?') {
    effective_.huge_pages = pool::HugePages::transparent;
  } else {
    // "auto" takes what there is; only asked-for explicit pages are missed.
    effective_.huge_pages = pool::HugePages::off;
  }
  effective_.prefault = options_.prefault;
  kernel_calls_.fetch_add(created ? 5 : 3);
  if (options_.prefault && !created) {
    if (const int error = os.prefault(segment_.base(), bytes, true); error != 0) {
      effective_.prefault = false;
      refused(pool::Step::prefault, error, bytes, 0);
    }
  }
  if (!options_.lock) return;
  kernel_calls_.fetch_add(1);
  if (const int error = os.lock(segment_.base(), bytes); error != 0) {
    refused(pool::Step::lock, error, bytes, os.lockable_memory());
  } else {
    effective_.lock = true;
  }
}

SharedPool* SharedPool::find(const os::SegmentId& id) noexcept {
  const Registry::Lock registry;
  return Registry::find(id);
}

SharedPool* SharedPool::find(const void* address) noexcept {
  const Registry::Lock registry;
  return Registry::find(address);
}

SharedPool* SharedPool::find_block(const void* address) noexcept { return Registry::find_block(address); }

bool SharedPool::add_reference_if_any() noexcept {
  std::uint64_t count = references_.load();
  while (count != 0) {
    if (references_.compare_exchange_weak(count, count + 1)) return true;
  }
  return false;
}

void SharedPool::drop_reference() noexcept {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  {
    const Registry::Lock registry;
    Registry::remove(this);
  }
  tell_what_is_left();
  close_in_order();
  if (tenancy_) {
    unlink_if_abandoned();
    leave();
  }
  destroy();
}

void SharedPool::leave() noexcept {
  // Another process recovers just now: wait a little, or else leave it to the next one that recovers.
  for (unsigned tries = 0; tries < 50; ++tries) {
    if (recovery_.run(tenancy_, true)) return;
    Recovery::wait_for_another();
  }
  processes_.mark_gone(tenancy_);
}

void SharedPool::destroy() noexcept {
  if (heap_ != nullptr) heap_->destroy();
  for (Heap* heap = inherited_heap_; heap != nullptr;) {
    Heap* const older = heap->older();
    heap->destroy();
    heap = older;
  }
  std::free(holds_);
  std::free(deferred_);
  origins_.release(os::memory());
  if (tenancy_ && processes_.current(tenancy_)) leave();
  os::withdraw_segment(segment_.made().id);
  segment_.unmap();
  this->~SharedPool();
  std::free(this);
}

// An end of this process is in order from here on: nobody takes the segment for the left-over of a dead one.
void SharedPool::close_in_order() noexcept {
  std::uint64_t creator = tenancy_.packed();
  if (tenancy_) (void)segment_.header().creator.compare_exchange_strong(creator, 0);
}

void SharedPool::close() noexcept {
  std::uint32_t openers = openers_.load();
  while (openers != 0 && !openers_.compare_exchange_weak(openers, openers - 1)) {
  }
  if (openers == 1) close_in_order();
}

int SharedPool::unlink() noexcept {
  if (name()[0] == '\0') return EINVAL;
  os::SharedMemory& os = segment_.os();
  return names_this(os, name(), segment_) ? os.unlink_named(name()) : ENOENT;
}

// Whether the name still is that of this segment, and not of a later one.
bool SharedPool::names_this(os::SharedMemory& os, const char* name, const Segment& segment) noexcept {
  int fd = -1;
  if (os.open_named(name, &fd) != 0) return false;
  os::SegmentFile there;
  os::SegmentFile here;
  const bool same = os.describe(fd, &there) == 0 && os.describe(segment.fd(), &here) == 0 &&
                    there.device == here.device && there.inode == here.inode;
  os.close(fd);
  return same;
}

// The creator died without closing, and this process is the last: nobody else will remove the name.
void SharedPool::unlink_if_abandoned() noexcept {
  if (name()[0] == '\0') return;
  const Tenancy creator = Tenancy::of(segment_.header().creator.load());
  if (!creator || processes_.alive(creator) || processes_.count_alive() > 1) return;
  (void)unlink();
}

// Removes `name` if all processes of its segment are dead. True: it is worth trying to publish again.
bool SharedPool::take_over_name(os::SharedMemory& os, const char* name) noexcept {
  return remove_if_dead(os, name, false);
}

bool SharedPool::remove_if_dead(os::SharedMemory& os, const char* name, bool only_after_death) noexcept {
  int fd = -1;
  if (const int error = os.open_named(name, &fd); error != 0) return error == ENOENT;
  // The file's lock keeps two from removing: the second would remove what the first has published since.
  if (os.try_lock_file(fd) != 0) {
    os.close(fd);
    const timespec pause{0, 1'000'000};
    ::nanosleep(&pause, nullptr);
    return true;
  }
  Segment segment;
  if (Segment::open(os, fd, &segment) != 0) return false;
  const Processes processes(segment);
  const bool died = segment.header().creator.load() != 0;
  bool removed = false;
  if (processes.count_alive() == 0 && (died || !only_after_death)) {
    removed = !names_this(os, name, segment) || os.unlink_named(name) == 0;
  }
  segment.unmap();
  return removed;
}

// Names left behind by processes that died.
void SharedPool::sweep_names(os::SharedMemory& os) noexcept {
  const auto visit = [](void* context, const char* name) {
    (void)remove_if_dead(*static_cast<os::SharedMemory*>(context), name, true);
    return true;
  };
  (void)os.for_each_name(visit, &os);
}

}  // namespace rtpool::shared
