#include "trace/recorder.hpp"

#include <pthread.h>
#include <time.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <new>

#include "base/bits.hpp"
#include "base/counter.hpp"
#include "base/loads.hpp"
#include "os/output_file.hpp"
#include "os/process_sample.hpp"

namespace rtpool::trace {

thread_local constinit StreamCache t_stream;

namespace {

constinit Recorder g_recorder;

}  // namespace

Recorder& recorder() noexcept { return g_recorder; }

// A thread inside the recorder (ST-1). Holds no stream where recording is over or there is none to be had.
class Recorder::Visit {
 public:
  Visit(Recorder& recorder, bool may_wait) noexcept : stream_(recorder.stream(may_wait)) {
    if (RTPOOL_UNLIKELY(stream_ == nullptr)) return;
    State state;
    if (RTPOOL_LIKELY(!recorder.symmetric())) {
      stream_->busy.store(1, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      state = base::acquire_load(recorder.state_);
    } else {
      stream_->busy.exchange(1, std::memory_order_seq_cst);
      state = recorder.state_.load(std::memory_order_seq_cst);
    }
    if (RTPOOL_LIKELY(state == State::running && t_stream.recording == recorder.number_.load(std::memory_order_relaxed))) return;
    stream_->busy.store(0, std::memory_order_release);
    stream_ = nullptr;
  }
  ~Visit() {
    if (stream_ != nullptr) stream_->busy.store(0, std::memory_order_release);
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  explicit operator bool() const noexcept { return stream_ != nullptr; }
  Stream& stream() const noexcept { return *stream_; }

 private:
  Stream* stream_;
};

int Recorder::start(const RecorderOptions& options, const char* meta, std::size_t meta_bytes, os::Memory& memory) noexcept {
  if (state_.load(std::memory_order_acquire) != State::idle) return EBUSY;
  options_ = options;
  memory_ = &memory;
  report_ = RecorderReport{};
  full_ = false;
  // Once: whoever is late from the recording before may be asking for the time.
  if (number() == 0) ticks_ = os::Ticks::choose();
  sums_.store(options.mode == Mode::totals, std::memory_order_relaxed);
  coarse_.store(now(), std::memory_order_relaxed);
#ifdef RTPOOL_THREAD_SANITIZER
  symmetric_.store(true, std::memory_order_relaxed);
#else
  symmetric_.store(!memory.process_barrier_available(), std::memory_order_relaxed);
#endif
  thread_count_.store(0, std::memory_order_relaxed);
  lost_outside_.store(0, std::memory_order_relaxed);
  {
    // A thread that was about to get its stream in the recording before may do so only now.
    const std::lock_guard guard(names_lock_);
    names_used_ = lives_used_ = 0;
  }
  int error = 0;
  if (names_[0] == nullptr) {
    void* address = nullptr;
    error = memory.reserve(2 * k_names_bytes, os::k_page_size, &address);
    if (error == 0) {
      names_[0] = static_cast<std::uint8_t*>(address);
      names_[1] = names_[0] + k_names_bytes;
    }
  }
  if (error == 0) error = memory.commit(names_[0], 2 * k_names_bytes);
  if (error == 0) error = memory.prefault(names_[0], 2 * k_names_bytes);
  const std::size_t slabs = base::divide_up(options.buffer, ChunkStore::k_slab_chunks * sizeof(Chunk));
  for (std::size_t i = 0; error == 0 && i < slabs; ++i) error = chunks_.add_slab(memory);
  if (error == 0) {
    number_.fetch_add(1, std::memory_order_relaxed);
    write_record(k_meta_record, meta, meta_bytes);
    write_sample();
    error = report_.write_error;
  }
  writer_ends_.store(false, std::memory_order_relaxed);
  // The writer waits for `running`, so that a failure to start it leaves nothing behind.
  if (error == 0) error = writer_.start("rtpool-trace", writer_main, this);
  if (error != 0) {
    chunks_.release(memory);
    (void)os::close_file(options_.file);
    options_.file = -1;
    return error;
  }
  state_.store(State::running, std::memory_order_release);
  while (stream_count_.load(std::memory_order_relaxed) < k_ready_streams) {
    Stream* const made = make_stream(true);
    if (made == nullptr) break;
    const std::lock_guard guard(stream_lock_);
    made->next_idle.store(idle_streams_, std::memory_order_relaxed);
    idle_streams_ = made;
  }
  if (options.mode != Mode::totals) return 0;
  // For threads whose first event is in a section that may not enter the kernel.
  const std::lock_guard guard(stream_lock_);
  Stream* next = idle_streams_;
  for (unsigned i = 0; i < k_ready_totals && next != nullptr; ++i, next = next->next_idle.load(std::memory_order_relaxed)) (void)make_totals(*next);
  return 0;
}

// --- streams ---

Stream* Recorder::stream(bool may_wait) noexcept {
  if (RTPOOL_LIKELY(t_stream.recording == number_.load(std::memory_order_relaxed))) return t_stream.stream;
  if (!running()) return nullptr;
  static const pthread_key_t key = [] {
    pthread_key_t made;
    ::pthread_key_create(&made, [](void* value) { thread_ends(value); });
    return made;
  }();
  Stream* found = nullptr;
  {
    const std::lock_guard guard(stream_lock_);
    found = idle_streams_;
    if (found != nullptr) idle_streams_ = found->next_idle.load(std::memory_order_relaxed);
  }
  if (found == nullptr) found = make_stream(may_wait);
  if (found == nullptr || ::pthread_setspecific(key, found) != 0) {
    lost_outside_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  {
    const std::lock_guard guard(stream_lock_);
    found->thread = thread_count_.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  t_stream = {number(), found};
  std::uint8_t item[1 + 2 * k_longest_varint];
  item[0] = k_thread_item;
  std::uint8_t* const end = put_varint(put_varint(item + 1, found->thread), may_wait ? os::thread_number() : 0);
  add_names(item, static_cast<std::size_t>(end - item), may_wait);
  return found;
}

Stream* Recorder::make_stream(bool may_wait) noexcept {
  if (!may_wait) return nullptr;
  const std::lock_guard guard(stream_lock_);
  const std::uint32_t index = stream_count_.load(std::memory_order_relaxed);
  if (index == k_most_streams) return nullptr;
  const std::size_t bytes = base::align_up(sizeof(Stream), os::k_largest_kernel_page);
  void* address = nullptr;
  if (os::reserve_resident(*memory_, bytes, &address) != 0) return nullptr;
  auto* const made = new (address) Stream;
  streams_[index].store(made, std::memory_order_release);
  stream_count_.store(index + 1, std::memory_order_release);
  return made;
}

// Streams stay where they are for good: a thread may look at its own after the recording.
void Recorder::thread_ends(void* value) noexcept {
  Recorder& self = recorder();
  auto* const stream = static_cast<Stream*>(value);
  if (t_stream.recording == self.number() && self.running()) {
    const Visit visit(self, true);
    if (visit && stream->encoder.has_chunk()) self.chunks_.push_full(stream->encoder.finish());
  }
  const std::lock_guard guard(self.stream_lock_);
  const bool present = t_stream.recording == self.number() && self.running();
  t_stream = StreamCache{};
  if (!present) return;  // stop collects it, or has
  stream->next_idle.store(self.idle_streams_, std::memory_order_relaxed);
  self.idle_streams_ = stream;
}

bool Recorder::begin_chunk(Stream& stream, std::uint64_t time, bool may_wait) noexcept {
  Chunk* chunk = chunks_.take();
  for (unsigned tries = 0; chunk == nullptr && may_wait && tries < 64; ++tries) {
    write_out(false);
    chunk = chunks_.take();
    // All are open, or in the ring.
    if (chunk == nullptr && chunks_.add_slab(*memory_) != 0) break;
  }
  if (chunk == nullptr) return false;
  stream.encoder.begin(*chunk, stream.thread, time, stream.lost);
  stream.lost = 0;
  return true;
}

bool Recorder::make_room(Stream& stream, std::uint64_t time, bool may_wait) noexcept {
  if (RTPOOL_LIKELY(stream.encoder.has_chunk())) {
    if (RTPOOL_LIKELY(!stream.encoder.full())) return true;
    chunks_.push_full(stream.encoder.finish());
  }
  if (begin_chunk(stream, time, may_wait)) return true;
  ++stream.lost;
  return false;
}

// --- events ---

bool Recorder::make_totals(Stream& stream) noexcept {
  void* address = nullptr;
  if (memory_->reserve(k_totals_bytes, os::k_page_size, &address) != 0) return false;
  if (memory_->commit(address, k_totals_bytes) != 0) {
    memory_->release(address, k_totals_bytes);
    return false;
  }
  stream.totals = static_cast<PlaceTotals*>(address);
  make_totals_ready(stream, 1);
  return true;
}

void Recorder::make_totals_ready(Stream& stream, std::uint32_t places) noexcept {
  const auto bytes = [](std::uint32_t count) { return count * sizeof(PlaceTotals); };
  const std::size_t from = base::align_down(bytes(stream.totals_ready), os::k_largest_kernel_page);
  stream.totals_ready = static_cast<std::uint32_t>(base::align_up(places, k_totals_step));
  const std::size_t to = base::align_up(bytes(stream.totals_ready), os::k_largest_kernel_page);
  (void)memory_->prefault(reinterpret_cast<char*>(stream.totals) + from, to - from);
}

PlaceTotals* Recorder::totals(Stream& stream, std::uint32_t place, bool may_wait) noexcept {
  if (RTPOOL_UNLIKELY(stream.totals == nullptr) && (!may_wait || !make_totals(stream))) return nullptr;
  if (RTPOOL_UNLIKELY(place >= stream.totals_ready)) {
    // What may not fault, and where there is no room, counts as nowhere.
    if (place >= k_totals_places || !may_wait) {
      place = 0;
    } else {
      make_totals_ready(stream, place + 1);
    }
  }
  if (place >= stream.totals_used) stream.totals_used = place + 1;
  return stream.totals + place;
}

void Recorder::allocated(std::uint64_t recording, Origins* origins, const void* block, std::size_t size, unsigned kind,
                         bool may_wait) noexcept {
  const Visit visit(*this, may_wait);
  if (!visit || RTPOOL_UNLIKELY(recording != number())) return;
  const std::uint32_t place = options_.where != nullptr ? options_.where(true) : 0;
  const bool sums = options_.mode == Mode::totals;
  const std::uint64_t time = sums ? coarse_now() : now_after();
  if (origins != nullptr && block != nullptr) origins->set(block, size, Origin::pack(place, time), may_wait);
  Stream& stream = visit.stream();
  if (sums) {
    count_allocation(stream, place, size, kind, may_wait);
  } else if (RTPOOL_LIKELY(make_room(stream, time, may_wait))) {
    stream.encoder.put_block(kind, time, place, block, size);
  }
}

void Recorder::alive(Origins* origins, const void* block, std::size_t size, std::uint64_t time) noexcept {
  const Visit visit(*this, true);
  if (!visit) return;
  if (origins != nullptr && origins->get(block, size) != 0) origins->set(block, size, 0, true);
  Stream& stream = visit.stream();
  if (options_.mode == Mode::totals) {
    count_allocation(stream, 0, size, k_allocate, true);
  } else if (make_room(stream, time, true)) {
    stream.encoder.put_block(k_alive, time, 0, block, size);
  }
}

void Recorder::ended(const BlockEnd& end, bool may_wait) noexcept {
  const Visit visit(*this, may_wait);
  if (!visit || RTPOOL_UNLIKELY(end.recording != number())) return;
  Stream& stream = visit.stream();
  if (options_.mode == Mode::totals) return count_end(stream, end, may_wait);
  const std::uint32_t place = options_.where != nullptr && !end.elsewhere ? options_.where(false) : 0;
  if (RTPOOL_LIKELY(make_room(stream, end.time, may_wait))) stream.encoder.put_block(end.kind, end.time, place, end.block, end.size);
}

void Recorder::count_allocation(Stream& stream, std::uint32_t place, std::size_t size, unsigned kind, bool may_wait) noexcept {
  PlaceTotals* const sums = totals(stream, place, may_wait);
  if (RTPOOL_UNLIKELY(sums == nullptr)) {
    ++stream.lost;
    return;
  }
  sums->zeroed += (kind & k_zeroed) != 0 ? 1 : 0;
  const auto outcome = static_cast<Outcome>(kind >> k_outcome_shift & 3);
  if (RTPOOL_UNLIKELY(outcome != Outcome::hit)) {
    ++sums->misses;
    if (outcome == Outcome::fallback) ++sums->fallbacks;
    if (outcome == Outcome::failed) {
      ++sums->failures;
      return;
    }
  }
  ++sums->calls;
  sums->bytes += size;
  const auto live = static_cast<std::int64_t>(sums->bytes - sums->freed_bytes);
  if (live > static_cast<std::int64_t>(sums->peak_bytes)) sums->peak_bytes = static_cast<std::uint64_t>(live);
}

void Recorder::count_end(Stream& stream, const BlockEnd& end, bool may_wait) noexcept {
  PlaceTotals* const sums = totals(stream, Origin::place(end.origin), may_wait);
  if (RTPOOL_UNLIKELY(sums == nullptr)) {
    ++stream.lost;
    return;
  }
  ++sums->frees;
  sums->freed_bytes += end.size;
  sums->remote_frees += (end.kind & k_remote) != 0 ? 1 : 0;
  if (end.origin != 0) sums->lifetime += Origin::age(end.origin, end.time);
}

void Recorder::mark(Mark mark, std::uint64_t number, bool may_wait) noexcept {
  if (!running()) return;
  const Visit visit(*this, may_wait);
  if (!visit || options_.mode == Mode::totals) return;
  const std::uint64_t time = now();
  if (make_room(visit.stream(), time, may_wait)) visit.stream().encoder.put_mark(mark, time, number);
}

// A record of its own, as readers pass over kinds of records that they do not know.
void Recorder::add_life(const PoolLife& life) noexcept {
  if (!running()) return;
  for (;;) {
    {
      const std::lock_guard guard(names_lock_);
      if (lives_used_ < k_lives) {
        lives_[lives_used_++] = life;
        return;
      }
    }
    const Visit visit(*this, true);
    if (!visit) return;  // recording ends
    const std::lock_guard guard(writer_lock_);
    write_names();
  }
}

// --- the end ---

void Recorder::await_threads() noexcept {
  if (!symmetric() && memory_->process_barrier() != 0) {
    // Given up since (a seccomp filter): no store that was under way is still on its way after this.
    const timespec pause{0, 10'000'000};
    ::nanosleep(&pause, nullptr);
  }
  const std::uint32_t count = stream_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    const Stream& stream = *streams_[i].load(std::memory_order_relaxed);
    while (stream.busy.load(symmetric() ? std::memory_order_seq_cst : std::memory_order_acquire) != 0) {
      const timespec pause{0, 20'000};
      ::nanosleep(&pause, nullptr);
    }
  }
}

void Recorder::stop() noexcept {
  if (!running()) return;
  state_.store(State::stopping, std::memory_order_seq_cst);
  await_threads();
  writer_ends_.store(true, std::memory_order_release);
  writer_.join();
  const std::uint32_t count = stream_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    Stream& stream = *streams_[i].load(std::memory_order_relaxed);
    if (stream.encoder.has_chunk()) chunks_.push_full(stream.encoder.finish());
    report_.lost_no_room += stream.lost;
    stream.lost = 0;
  }
  report_.lost_no_room += lost_outside_.load(std::memory_order_relaxed);
  write_out(true);
  {
    // Streams of threads that go on are free for the next recording: their threads find another number then.
    const std::lock_guard guard(stream_lock_);
    idle_streams_ = nullptr;
    for (std::uint32_t i = 0; i < count; ++i) {
      Stream* const stream = streams_[i].load(std::memory_order_relaxed);
      if (stream->totals != nullptr) memory_->release(stream->totals, k_totals_bytes);
      stream->totals = nullptr;
      stream->totals_used = stream->totals_ready = 0;
      stream->next_idle.store(idle_streams_, std::memory_order_relaxed);
      idle_streams_ = stream;
    }
  }
}

void Recorder::finish(const char* end, std::size_t end_bytes) noexcept {
  if (state_.load(std::memory_order_acquire) != State::stopping) return;
  write_record(k_end_record, end, end_bytes);
  (void)os::close_file(options_.file);
  options_.file = -1;
  chunks_.release(*memory_);
  number_.fetch_add(1, std::memory_order_relaxed);  // no thread's stream is the present one any more
  state_.store(State::idle, std::memory_order_release);
}

RecorderReport Recorder::report() noexcept {
  const std::lock_guard guard(writer_lock_);
  return report_;
}

// --- fork ---

void Recorder::stop_for_fork() noexcept {
  stream_lock_.lock();
  writer_lock_.lock();
  names_lock_.lock();
  chunks_.lock().lock();
}

void Recorder::resume_after_fork() noexcept {
  chunks_.lock().unlock();
  names_lock_.unlock();
  writer_lock_.unlock();
  stream_lock_.unlock();
}

// Other threads may have been in the middle of an event: their streams and the chunks are left as they are, and never
// used again. What has been reserved is the child's copy and costs nothing that it does not touch.
void Recorder::forget_in_child() noexcept {
  chunks_.lock().reset_after_fork();
  writer_lock_.reset_after_fork();
  names_lock_.reset_after_fork();
  stream_lock_.reset_after_fork();
  t_stream = StreamCache{};
  if (state_.load(std::memory_order_relaxed) == State::idle) return;
  writer_.forget();
  (void)os::close_file(options_.file);
  options_.file = -1;
  number_.fetch_add(1, std::memory_order_relaxed);
  idle_streams_ = nullptr;
  stream_count_.store(0, std::memory_order_relaxed);
  chunks_.forget();
  ring_first_ = ring_last_ = nullptr;
  ring_bytes_ = 0;
  state_.store(State::idle, std::memory_order_release);
}

}  // namespace rtpool::trace
